"""Tables of runs and comparisons, for terminals, papers and Markdown."""
