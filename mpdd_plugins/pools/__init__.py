"""Model-pool policies."""
