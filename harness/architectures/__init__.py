"""The built-in architectures: the networks of DC's code base, and torchvision's classifiers."""
