"""One file a tracker: a tool outside of torchstone in which trainings are looked at and compared. The history and the
report need none of them; ``train.tracking`` is who calls them."""
