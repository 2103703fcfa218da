"""torchstone's own small networks: one file each, which holds a function of the file's name,
``(classes: int, channels: int) -> nn.Module``. All of them take 32×32 images."""
