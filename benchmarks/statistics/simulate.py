"""Are the tests and intervals of `ddbench compare` at their level? `python benchmarks/statistics/simulate.py`.

Scores with a planted effect and with none, of which the truth is known, go through the very functions of `ddbench
compare`. Each line says how often something happened in so many repetitions, and how often it should.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from harness.report.comparing.comparison import compare
from harness.report.comparing.question import Question
from harness.report.comparing.statistics import Bootstrap
from harness.report.scores import Score, Scores

GAIN = 0.03
"""Of the planted effect: three percentage points."""
LEVEL = 0.95
ARCHITECTURES = ("convnet", "mlp", "lenet", "alexnet", "vgg11", "resnet18")


@dataclass(frozen=True)
class Rate:
    """How often something happened; ``wanted`` is how often it should, None where that is only to be known."""

    design: str
    what: str
    count: int
    repetitions: int
    wanted: float | None

    @property
    def discoveries(self):
        return self.count / self.repetitions


@dataclass(frozen=True)
class World:
    """Where scores come from: each is a mean plus what its set, its student and their pairing add (deviations)."""

    distillations: int = 5
    students: int = 4
    others: tuple = ("main-similar",)
    architectures: tuple = ("convnet",)
    gain: float = 0.0
    between_sets: float = 0.02
    shared_by_sets: float = 0.02
    between_students: float = 0.03
    shared_by_students: float = 0.03
    same_seeds: bool = True

    def draw(self, random):
        """Scores, and the true difference of the sets' own expectations in the first architecture."""
        units = (self.distillations, len(self.architectures))
        common_set = random.normal(0, self.shared_by_sets, units)
        common_student = random.normal(0, self.shared_by_students, (*units, self.students))
        scores, expected = [], []
        for index, pool in enumerate(("single", *self.others)):
            if not self.same_seeds:
                common_set = random.normal(0, self.shared_by_sets, units)
                common_student = random.normal(0, self.shared_by_students, (*units, self.students))
            own = random.normal(0, self.between_sets, units)
            of_set = 0.4 + self.gain * (index > 0) + common_set + own
            noise = random.normal(0, self.between_students, (*units, self.students))
            accuracies = of_set[..., None] + common_student + noise
            expected.append(of_set[0, 0])
            seed = 0 if self.same_seeds else index
            scores += [
                score(pool, architecture, seed, d, s, accuracies[d, a, s])
                for d in range(self.distillations)
                for a, architecture in enumerate(self.architectures)
                for s in range(self.students)
            ]
        return Scores(tuple(scores), (), ()), expected[1] - expected[0]


def score(pool, architecture, seed, distillation, student, accuracy):
    """A score as it would be read from a store."""
    return Score(
        store="store", key=f"{pool} {architecture} {seed} {distillation} {student}", set_key=f"{pool} {distillation}",
        dataset="digits", ipc=1, iterations=1000, method="dc", pool=pool, evaluator="plain", architecture=architecture,
        protocol="plain v1", precision="fp32", score_on="test", scored="images", seed=seed, distillation=distillation,
        student=student, accuracy=float(accuracy), collapsed=False, status="done", device="cpu", seconds=1.0,
        peak_memory=0,
    )  # fmt: skip


def single_effect(name, world, repetitions, seed, bootstrap=None, of_these_sets=False):
    """Rates of a design with one effect, with none and with a planted one.

    ``of_these_sets``: the truth is the difference of the two sets at hand, not of what made them.
    """
    random = np.random.default_rng(seed)
    rejected = starred = covered = discoveries = 0
    for gain in (0.0, GAIN):
        planted = World(**{**vars(world), "gain": gain})
        for _ in range(repetitions):
            scores, of_sets = planted.draw(random)
            effect = the_effect(scores, bootstrap)
            truth = of_sets if of_these_sets else gain
            covered += effect.estimate.low <= truth <= effect.estimate.high
            if gain:
                discoveries += effect.holm < 1 - LEVEL
            else:
                rejected += effect.holm < 1 - LEVEL
                starred += effect.decided
    yield Rate(name, "false positives", rejected, repetitions, 1 - LEVEL)
    yield Rate(name, "interval covers", covered, 2 * repetitions, LEVEL)
    yield Rate(name, f"{100 * GAIN:g} points found", discoveries, repetitions, None)
    yield Rate(name, "stars without effect", starred, repetitions, None)


def the_effect(scores, bootstrap=None):
    (row,) = compare(scores, Question(level=LEVEL, bootstrap=bootstrap)).rows
    return row.effects["main-similar"]


def family(repetitions, seed):
    """How often at least one of all effects of a question is starred although there is none."""
    random = np.random.default_rng(seed)
    world = World(architectures=ARCHITECTURES, others=("main-similar", "total-random"), students=3)
    any_adjusted = any_raw = 0
    for _ in range(repetitions):
        answer = compare(world.draw(random)[0], Question(level=LEVEL))
        effects = [effect for row in answer.rows for effect in row.effects.values()]
        any_adjusted += any(effect.decided for effect in effects)
        any_raw += any(effect.estimate.p < 1 - LEVEL for effect in effects)
    name = f"{len(effects)} effects"
    yield Rate(name, "any star, Holm", any_adjusted, repetitions, 1 - LEVEL)
    yield Rate(name, "any below, raw", any_raw, repetitions, None)


def simulate(repetitions=200, seed=1):
    """All rates; each design has a generator of its own."""
    alone = World(distillations=1, students=10)
    equal = World(distillations=1, students=10, between_sets=0.0)
    yield from single_effect("5 distillations x 4 students", World(), repetitions, seed)
    yield from single_effect("3 distillations x 5 students", World(distillations=3, students=5), repetitions, seed + 1)
    yield from single_effect("5 x 4, no common seeds", World(same_seeds=False), repetitions, seed + 2)
    yield from single_effect("one set, equal sets", equal, repetitions, seed + 3, of_these_sets=True)
    yield from _overconfident(single_effect("one set, sets that vary", alone, repetitions, seed + 4))
    yield from single_effect("20 x 2, bootstrap", World(distillations=20, students=2), repetitions, seed + 5,
                             Bootstrap(seed, resamples=999))  # fmt: skip
    yield from family(repetitions, seed + 6)


def _overconfident(rates):
    """Of one set taken for all: rates as they are, for these are what the caption warns of."""
    return (Rate(rate.design, rate.what, rate.count, rate.repetitions, None) for rate in rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for rate in simulate(arguments.repetitions, arguments.seed):
        wanted = "" if rate.wanted is None else f"  wanted {100 * rate.wanted:.0f} %"
        print(f"{rate.design:30} {rate.what:22} {100 * rate.discoveries:5.1f} % of {rate.repetitions}{wanted}")


if __name__ == "__main__":
    main()
