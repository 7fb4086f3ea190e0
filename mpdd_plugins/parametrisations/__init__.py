"""Parametrisations: what a distilled set stores, and how training images are decoded from it."""
