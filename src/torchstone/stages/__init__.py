"""The stages, one file each: what ``pipeline.run`` puts in a row, and what the verbs of the command line call alone."""
