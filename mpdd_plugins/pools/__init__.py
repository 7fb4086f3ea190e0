"""Pools: policies from which architecture each network of a distillation is drawn."""
