"""Pools that ask for probes and do one thing more, as a plugin would bring them."""

from toy_plugins import registered

from harness import Options, Pool, Probe, RealNetwork, Recipe, option

MAIN, OTHER = "convnet[width=4,depth=1]", "mlp[width=4]"
CALLS = []
"""What `Together` was asked, with the number of probes that it had heard of."""


def installed():
    """The pools of this module, beside those of the real plugins."""
    return registered({"probed": "pool", "together": "pool"}, "toy_pools")


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


class Together(Probed):
    """Has each step match both architectures, in an order that changes at each probe, from trained networks."""

    heard = 0

    @property
    def main(self):
        return None

    def probed(self, result, generator):
        self.heard += 1

    @property
    def together(self):
        return 2

    def distribution_of(self, iteration, draw):
        return {(MAIN, OTHER)[(draw + self.heard) % 2]: 1.0}

    def combine(self, gradients):
        CALLS.append(("combine", self.heard))
        return super().combine(gradients)

    def starts_from(self, architecture, iteration, draw):
        return RealNetwork(architecture=architecture, recipe=Recipe(1, 0.01), snapshots=(1,))

    def prepare(self, network, generator):
        CALLS.append(("prepare", self.heard))

    def state(self):
        return {"heard": self.heard}

    def restore(self, state):
        self.heard = state.get("heard", 0)
