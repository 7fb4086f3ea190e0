"""Artifacts that the harness knows how to make: networks trained on the real data."""
