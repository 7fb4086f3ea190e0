"""What plugin authors subclass or receive, and the file formats of distilled sets."""
