"""What the machine needs: compilation, CUDA graphs, Winograd convolutions, precision, parallelism."""
