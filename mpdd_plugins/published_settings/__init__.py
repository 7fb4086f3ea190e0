"""Options of methods whose published values depend on the data set, with these values."""
