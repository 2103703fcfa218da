from lenet5_artifacts import candidates, encoded, lenet5, pixels

__all__ = ["candidates", "encoded", "lenet5", "pixels"]
