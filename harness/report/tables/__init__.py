"""Tables of runs and comparisons, for terminals, Markdown, CSV and JSON."""
