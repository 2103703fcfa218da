"""Studies over recipes: which values of a training's options serve its objectives best. Any number of workers share
one study through its database."""
