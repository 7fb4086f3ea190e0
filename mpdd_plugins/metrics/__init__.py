"""Metrics: what a run measures of its students beside the accuracy."""
