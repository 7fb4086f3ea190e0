"""The answer to a comparison in one screen: a matrix of verdicts and three sentences."""
