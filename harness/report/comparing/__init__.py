"""From scores to answers: which scores are compared, their effects and intervals."""
