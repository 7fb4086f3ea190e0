"""Data sets beyond torchvision's: Tiny-ImageNet, ImageNet, CIFAR-10-C, MedMNIST, and those of the Hugging Face hub."""
