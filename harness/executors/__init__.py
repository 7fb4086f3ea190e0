"""Executors: where and how the processes that do the work of a run are started."""
