"""The built-in architectures: the networks of DC's code base, and the classifiers of torchvision and timm."""
