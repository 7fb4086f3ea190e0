"""Trackers, each for a package that is installed with an extra: ``pip install 'ddbench[tensorboard]'``."""
