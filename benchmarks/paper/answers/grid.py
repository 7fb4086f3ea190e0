"""The share of a table's grid that has been run, by its config file."""

import tomllib
from collections import Counter
from dataclasses import dataclass

CHANCE = 0.11
"""A student of ten classes below this learned next to nothing."""


@dataclass(frozen=True)
class Share:
    """Of one pool with one evaluator at one point: how many students are there, of how many."""

    pool: str
    evaluator: str
    ipc: int
    iterations: int
    there: int
    wanted: int


def shares(scores, config):
    """What the config file asks for, and how much of it the scores hold, whatever their precision and seed.

    A copy of a data set counts as that.
    """
    asked = tomllib.loads(config.read_text())
    each = asked["distillations"] * asked["students"] * len(asked["architecture"])
    there = Counter((score.pool, score.evaluator, score.ipc, score.iterations) for score in _within(scores, asked))
    return [
        Share(pool, evaluator, ipc, iterations, there[pool, evaluator, ipc, iterations], each)
        for ipc in asked["ipc"]
        for iterations in asked["iterations"]
        for pool in asked["pool"]
        for evaluator in asked["evaluator"]
    ]


def _within(scores, asked):
    """Students of the grid, each once."""
    rows = {}
    for score in scores:
        if (
            score.score_on == "test"
            and {score.dataset, score.like}.intersection(asked["dataset"])
            and score.method in asked["method"]
            and score.architecture in asked["architecture"]
            and score.distillation < asked["distillations"]
            and score.student < asked["students"]
        ):
            place = (score.pool, score.evaluator, score.ipc, score.iterations, score.architecture, score.distillation)
            rows.setdefault((*place, score.student), score)
    return rows.values()


def is_lost(score):
    """Whether the set that a student learned from diverged or blew up."""
    return score.status != "done"


def is_at_chance(score):
    """Whether a student learned next to nothing."""
    return score.accuracy < CHANCE


def arms(scores):
    """What lies in the store: for each arm its distillations, students, and how they ended."""
    groups = {}
    for score in scores:
        if score.score_on == "test":
            place = (score.ipc or 0, score.iterations or 0, score.method, score.pool or "")
            groups.setdefault((*place, score.evaluator, score.precision), []).append(score)
    return dict(sorted(groups.items()))
