"""Pools that ask for probes and do one thing more, as a plugin would bring them."""

import torch

from harness import Options, Pool, Probe, option
from mpdd_plugins.pools.pair import PairPool

MAIN, OTHER = "convnet[width=4,depth=1]", "mlp[width=4]"


class ProbedOptions(Options):
    every: int = option(2, "iterations from one probe to the next")
    fails: int = option(1000, "the iteration whose probe it cannot take")


class Probed(Pool[ProbedOptions]):
    """Draws a main architecture and another one equally often, whatever its probes say."""

    Options = ProbedOptions

    @property
    def main(self):
        return MAIN

    def distribution(self, iteration):
        return {MAIN: 0.5, OTHER: 0.5}

    @property
    def probe(self):
        return Probe((OTHER,), "plain[epochs=1]", 1)

    def probes_at(self, iteration):
        return iteration % self.options.every == 0

    def probed(self, result, generator):
        if result.iteration >= self.options.fails:
            raise ValueError("one probe too many")
