"""Ways to train and score students."""
