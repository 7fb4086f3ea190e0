"""The built-in architectures: the networks of DC's code base, deep networks, and torchvision's classifiers."""
