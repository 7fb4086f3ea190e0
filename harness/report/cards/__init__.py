"""Data cards: what a shared set is, how good it is and how to use it, with nothing private."""
