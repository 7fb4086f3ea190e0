"""Worker processes and the processes that watch them."""
