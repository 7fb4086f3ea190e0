"""The sections of pools: what they drew, and how they adapted."""
