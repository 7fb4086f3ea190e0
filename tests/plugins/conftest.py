from fake_distributions import distribution

__all__ = ["distribution"]
