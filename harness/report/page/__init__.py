"""The report page: the results of stores in one self-contained HTML file."""
