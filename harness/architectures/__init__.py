"""The built-in architectures: the networks of DC's code base, deep ones, and those of torchvision and timm."""
