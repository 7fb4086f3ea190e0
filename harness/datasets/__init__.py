"""The host's own data sets, and how any data set becomes a problem."""
