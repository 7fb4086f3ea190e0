"""Data sets that come with the harness, and how any data set becomes a problem."""
