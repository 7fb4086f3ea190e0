"""Worker processes and those that watch them."""
