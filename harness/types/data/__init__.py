"""Images, labels and what is done to them before training."""
