"""The outer loop, students, matching gradients: the machinery under methods and evaluators."""
