"""Pool that finds the main architecture's probability while a set is distilled.

The model-pool paper fixes the probability at 0.9 "by our prior knowledge", and leaves finding it to future work
(section 6). No paper has published a rule; the two here are our own, with the sources of their parts.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import pydantic
import torch

from harness import Name, NameList, Probe, ProbeResult, option, parse_name
from mpdd_plugins.pools.exponential_weights import ExponentialWeights
from mpdd_plugins.pools.main_similar import MainSimilar, MainSimilarOptions
from mpdd_plugins.pools.weighted_names import main_of, merge, uniform, weighted

OF_PROBES = ("probabilities", "every", "panel", "students", "evaluator", "step", "scale", "replay")
OF_CONFLICT = ("strength", "memory", "prior", "shares")
RECENT = 5
"""Gains, about, over which the usual gain is averaged."""
_DEFAULTS = {("norm", "instance"), ("act", "relu"), ("pool", "avg")}
"""The ConvNet's own choices of table 3: the product of the table names the main ConvNet with them."""


class AdaptiveOptions(MainSimilarOptions):
    """Options of `Adaptive`."""

    main: str = option(
        "convnet",
        "main architecture; under conflict ARCHITECTURE:PROBABILITY of the start, 0.9 if it is left out",
        source="model-pool paper, table 2",
    )
    strategy: Literal["probe", "conflict"] = option(
        "probe", "probe: by scores on a validation split; conflict: by the cosines of image gradients", source="own"
    )
    probabilities: NameList = option(
        ("0.5", "0.7", "0.8", "0.9", "0.95", "1.0"),
        "probe: the main architecture's probabilities, of which the best is sought; a single one needs no probes",
        source="own; 0.9: model-pool paper",
        min_length=1,
    )
    every: int = option(25, "probe: iterations from one probe to the next", source="own", ge=1)
    panel: NameList = option(("mlp", "lenet"), "probe: architectures of the students", source="own", min_length=1)
    students: int = option(2, "probe: students of each architecture", source="own", ge=1)
    evaluator: str = option("plain[protocol=quick]", "probe: how the students are trained", source="own")
    step: float = option(0.3, "probe: step size of the weights' logarithms", source="own; Auer et al.: explore/K", gt=0)
    explore: float = option(
        0.2, "share of the probability that is spread whatever was learned: over the probabilities, or as at the start",
        source="Auer et al., 2002, gamma", gt=0, le=1,
    )  # fmt: skip
    scale: float = option(0.05, "probe: gain of accuracy (0.05: 5 points) that is a reward of 1", source="own", gt=0)
    replay: bool = option(
        True, "probe: distil again from the whole training set by what was found; false: score the probed set itself",
        source="own",
    )  # fmt: skip
    strength: float = option(2.0, "conflict: eta of the rule; a cosine c multiplies a share by exp(eta c)", gt=0)
    memory: int = option(20, "conflict: draws of an architecture over which its cosine is averaged", ge=1)
    prior: float = option(5.0, "conflict: draws that the mean of all other architectures counts as", gt=0)
    shares: bool = option(True, "conflict: the shares of the others change among themselves, too")

    @pydantic.field_validator("probabilities")
    @classmethod
    def _check_probabilities(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        numbers = [_number(text) for text in texts]
        if not all(0 < number <= 1 for number in numbers) or len(set(numbers)) < len(numbers):
            raise ValueError("the main architecture's probabilities should be above 0, at most 1, and each listed once")
        return texts

    @pydantic.model_validator(mode="after")
    def _used_by_the_strategy(self) -> Self:
        other = OF_CONFLICT if self.strategy == "probe" else OF_PROBES
        if unused := [name for name in other if name in self.changed()]:
            raise ValueError(f"strategy={self.strategy} uses no {unused[0]}: leave it out")
        if self.strategy == "probe" and weighted(self.main)[1] is not None:
            raise ValueError("strategy=probe seeks the probability: list it in probabilities, and leave it out of main")
        return self

    @pydantic.model_validator(mode="after")
    def _something_to_find(self) -> Self:
        main, probability = main_of(self.main, architecture="convnet", probability=0.9)
        if self.others and all(_brief(other) == _brief(main) for other in self.others) and self.seeks:
            raise ValueError(
                f"others holds nothing beside the main architecture {main}, and there is no probability to find: "
                "name another architecture, or take the pool single"
            )
        if self.strategy == "conflict" and probability == 1:
            raise ValueError(
                f"main={self.main} leaves the others no share that could change: write {main}:0.9, or take the pool "
                "single"
            )
        return self

    @property
    def seeks(self) -> bool:
        """Whether a distribution is sought: with a single probability there is nothing to find."""
        return self.strategy == "conflict" or len(self.probabilities) > 1


class Adaptive(MainSimilar):
    """Draws as `main-similar`, with a probability of the main architecture that changes as the set is learned.

    **strategy=probe.** Each of the ``probabilities`` is an arm of a bandit (`ExponentialWeights`: Exp3). Every so many
    iterations (``every``) a few students are trained on the present set and scored on a validation split, never on test
    images. The arm that was drawn before is rewarded by the gain of their mean accuracy a since the last probe,

        x = clip((a - a' - b) / scale, -1, 1),

    and the next arm is drawn. b is the usual gain, which all arms share: a set improves under any probability, and ever
    more slowly, so that without b, or with the mean of all gains for it, whichever arm is drawn first would win. The
    k-th gain g is compared with

        b(k) = m(k - 1) / sqrt(k),    m(k) = m(k - 1) + (sqrt(k) g(k) - m(k - 1)) / 5,    m(1) = g(1),

    a running mean of recent gains, as if they fell with the root of their number. The first gain, which can be compared
    with nothing, is no reward. Before the first probe the probability is the mean of all; an iteration without a
    warm-up begins with a probe. Warm-up iterations are not probed.

    **strategy=conflict.** With q the distribution of `main-similar`, an architecture a beside the main one has the
    share

        P(a) = (1 - explore) q(a) exp(strength c(a)) / Z + explore q(a),

    and the main one the same with c = 0, also where it is listed among the similar ones; Z makes the first parts sum to
    1 - explore. c(a) is the mean cosine, from -1 to 1, between the image gradients of its draws and the running mean of
    the main architecture's (``main_cosine``): a share rises while its gradients agree with the main one's, and falls
    when they conflict. ``strength`` 2 lets two architectures of cosines 1 and -1 differ by a factor of e^4, about 55.
    With s(a) the mean over its last draws (exponential, of about ``memory`` of them; n(a) in number), and s that over
    all others together,

        c(a) = (n(a) s(a) + prior s) / (n(a) + prior),

    because each of 32 architectures is drawn once in hundreds of iterations; c(a) = s without ``shares``. ``explore``
    keeps every architecture drawable, so that it can come back. The matching loss takes no part: its size differs from
    architecture to architecture with the number of layers.
    """

    Options = AdaptiveOptions
    options: AdaptiveOptions
    version = 2

    def __init__(self, options: AdaptiveOptions) -> None:
        super().__init__(options)
        self._arms = [_number(text) for text in options.probabilities]
        self._bandit = ExponentialWeights(len(self._arms), step=options.step, explore=options.explore)
        self._accuracy: float | None = None
        self._gains, self._usual = 0, 0.0
        """The number of gains, and m of the class: their running mean, each times the root of its number."""
        self._cosines: dict[str, list[float]] = {}
        """By architecture beside the main one, its number of draws and its mean cosine; "" is all together."""

    @property
    def _seeks(self) -> bool:
        """Whether it asks for probes: with a single probability there is nothing to find."""
        return self.options.strategy == "probe" and len(self._arms) > 1

    @property
    def adapts(self) -> bool:
        """Whether the distribution depends on what was observed."""
        return self._seeks or self.watches_gradients

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the main architecture alone during the warm-up, and then all of them by what was learned."""
        if iteration < self._warmup:
            return {self._main: 1.0}
        if self.options.strategy == "conflict":
            return self._by_cosines()
        main = self._main_probability()
        return merge({self._main: main}, uniform(self.similar, 1 - main))

    # --- probes -------------------------------------------------------------------------------------------------------

    @property
    def probe(self) -> Probe | None:
        """The students of its probes; None if it asks for none."""
        options = self.options
        return Probe(options.panel, options.evaluator, options.students) if self._seeks else None

    def probes_at(self, iteration: int) -> bool:
        """Return whether a probe is due: from the end of the warm-up on, every so many iterations."""
        after = iteration - self._warmup
        return self._seeks and after >= 0 and after % self.options.every == 0

    @property
    def replays(self) -> bool:
        """Whether what was found is replayed on the whole training set."""
        return self.options.replay

    def probed(self, result: ProbeResult, generator: torch.Generator) -> None:
        """Reward the present probability by the gain since the last probe, and draw the next."""
        if self._accuracy is not None:
            self._reward(result.mean - self._accuracy)
        self._accuracy = result.mean
        self._bandit.draw(generator)

    def _reward(self, gain: float) -> None:
        """Reward the present arm by a gain beyond the usual one."""
        self._gains += 1
        root = math.sqrt(self._gains)
        if self._gains == 1:
            self._usual = gain
            return
        self._bandit.reward(max(-1.0, min(1.0, (gain - self._usual / root) / self.options.scale)))
        self._usual += (root * gain - self._usual) / RECENT

    @property
    def weights(self) -> dict[float, float]:
        """The bandit's weight of each probability; they sum to 1."""
        return dict(zip(self._arms, self._bandit.weights, strict=True))

    def _main_probability(self) -> float:
        """Return the probability that was drawn last; before the first draw, the mean of all."""
        if self._bandit.arm is None:
            return math.fsum(self._arms) / len(self._arms)
        return self._arms[self._bandit.arm]

    # --- conflict -----------------------------------------------------------------------------------------------------

    @property
    def watches_gradients(self) -> bool:
        """Whether it needs the cosines of image gradients."""
        return self.options.strategy == "conflict"

    def observe(self, architecture: str, scalars: Mapping[str, float]) -> None:
        """Take the cosine of a step into the means of its architecture; the main one is what others are compared to."""
        cosine = scalars.get("main_cosine", math.nan)
        if not self.watches_gradients or self._is_main(architecture) or not math.isfinite(cosine):
            return
        for name in ("", architecture):
            count, mean = self._cosines.get(name, [0, 0.0])
            count += 1
            self._cosines[name] = [count, mean + (cosine - mean) / min(count, self.options.memory)]

    def _by_cosines(self) -> Mapping[str, float]:
        """Return the distribution by the rule of the class."""
        options = self.options
        start = merge({self._main: self._probability}, uniform(self.similar, 1 - self._probability))
        raised = {
            name: share * (1.0 if self._is_main(name) else math.exp(options.strength * self._cosine(name)))
            for name, share in start.items()
        }
        total = math.fsum(raised.values())
        return {
            name: (1 - options.explore) * raised[name] / total + options.explore * share
            for name, share in start.items()
        }

    def _is_main(self, architecture: str) -> bool:
        return _brief(architecture) == _brief(self._main)

    def _cosine(self, architecture: str) -> float:
        """Return c of the rule; 0 if nothing is known yet."""
        _, of_all = self._cosines.get("", [0, 0.0])
        count, own = self._cosines.get(architecture, [0, 0.0])
        if not self.options.shares:
            return of_all
        return (count * own + self.options.prior * of_all) / (count + self.options.prior)

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> Mapping[str, Any]:
        """Return what was learned: the bandit and its last accuracy, and the mean cosines."""
        return {
            "bandit": self._bandit.state(),
            "accuracy": self._accuracy,
            "gains": [self._gains, self._usual],
            "cosines": {name: list(known) for name, known in self._cosines.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state` returned; an empty state is that of the start."""
        if not state:
            return
        self._bandit.restore(state["bandit"])
        self._accuracy = state["accuracy"]
        self._gains, self._usual = state["gains"]
        self._cosines = {name: list(known) for name, known in state["cosines"].items()}


def _brief(architecture: str) -> Name:
    """Return a name in one spelling: without those of the ConvNet's defaults that table 3 names."""
    name = parse_name(architecture)
    if name.name.rpartition(":")[2] != "convnet":
        return name
    return Name(name.name, tuple(sorted(part for part in name.options if part not in _DEFAULTS)))


def _number(text: str) -> float:
    """Return the number that a text holds; NaN if it holds none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
