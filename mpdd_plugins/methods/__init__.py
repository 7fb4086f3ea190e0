"""Distillation methods, a file each."""
