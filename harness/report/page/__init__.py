"""The page: what stores hold, in one HTML file that needs nothing else."""
