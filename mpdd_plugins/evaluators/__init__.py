"""Evaluators: ways to train and score students on a distilled set."""
