"""Deep networks for small images."""
