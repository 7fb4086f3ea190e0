"""What starts the work of a run, registered through the same hook as anyone's; and the processes that are started."""
