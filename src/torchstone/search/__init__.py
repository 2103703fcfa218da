"""Studies over recipes and chains: which values of their options serve the objectives best. Any number of workers share
one study through its database."""
