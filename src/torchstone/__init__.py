"""torchstone: from a folder of images to a classifier in production, with every claim on the way proven."""
