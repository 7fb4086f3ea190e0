"""Kernel ridge regression on a learned set, and the closed-form kernels of infinitely wide networks."""
