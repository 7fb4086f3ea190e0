"""The networks that a method works with: drawn from a pool for a step, or living from step to step."""
