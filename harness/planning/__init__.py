"""Turns names into cells: requests, sources of sets, arms and plans. Nothing is computed here."""
