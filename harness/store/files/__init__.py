"""Reading and naming of the files of a store."""
