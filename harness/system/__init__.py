"""What is asked of the operating system: files, signals, processes, the clock."""
