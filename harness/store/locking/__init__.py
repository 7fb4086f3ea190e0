"""Leases: which process works on a cell."""
