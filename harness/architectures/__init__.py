"""The host's own architectures: the networks of the DC code base, and torchvision's classifiers."""
