"""From names and options to a plan of cells, to records in a store."""
