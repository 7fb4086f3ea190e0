"""Ways to compute the same numbers faster on a machine: compilation, CUDA graphs, convolutions, threads, precision.

Nothing here belongs to a formula of a paper. Shapes are named as in `harness.learning`.
"""
