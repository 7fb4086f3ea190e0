"""A search for options: what ``ddbench tune`` does, by optuna's ask and tell.

Every trial is a run on the validation split whose cells are in the store. Optuna's suggestions depend on the seed and
on the scores so far alone, so that a search which is started again asks for the same trials, and takes from the store
those that are done.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.api.run_result import RunResult
from harness.api.runs import run_request
from harness.api.search_space import SearchedOption, search_space
from harness.datasets.problems import traits_of
from harness.errors import UsageError
from harness.planning.request import Request
from harness.plugins.discovery import plugins
from harness.report.tables.wording import percent
from harness.running.reporter import Reporter, WithoutRepeats
from harness.system.packages import require_packages
from harness.types.names import Name, expand
from harness.types.plurals import counted

if TYPE_CHECKING:  # optional, and only imported by who tunes
    import optuna

_UNPRUNED = 3
"""Trials that are never pruned, to have something to compare with."""


@dataclass(frozen=True)
class TrialResult:
    """A trial of a search.

    Attributes:
        number: from 1 on, in the order in which trials were asked for.
        method: the method with the trial's options.
        values: the searched options, as text.
        scores: by number of iterations, the mean accuracy on the validation split over all students.
        state: ``done``, ``pruned`` at its last score, or ``failed``.
    """

    number: int
    method: str
    values: Mapping[str, str]
    scores: Mapping[int, float]
    state: str

    @property
    def score(self) -> float | None:
        """The last score; None if the trial failed."""
        return None if self.state == "failed" or not self.scores else self.scores[max(self.scores)]


@dataclass(frozen=True, eq=False)
class TuneResult:
    """The result of a search.

    Attributes:
        trials: all trials in their order.
        best: the trial with the best accuracy on the validation split.
        result: the run of its options on the whole training set, scored on test.
    """

    trials: tuple[TrialResult, ...]
    best: TrialResult
    result: RunResult

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``--json`` prints it."""
        trials = [{**vars(trial), "score": trial.score} for trial in self.trials]
        return {"trials": trials, "best": self.best.number, "result": self.result.as_json()}


@dataclass(frozen=True)
class _Search:
    """A search: the request whose method's options are varied, and how."""

    request: Request
    method: Name
    space: Sequence[SearchedOption]
    points: tuple[int, ...]
    reporter: Reporter
    trials: list[TrialResult] = field(default_factory=list)

    def name(self, values: Mapping[str, str]) -> str:
        """Return the method with a trial's options."""
        return str(Name(self.method.name, tuple({**dict(self.method.options), **values}.items())))

    def scores(self, methods: Sequence[str], iterations: int) -> dict[str, float | None]:
        """Run methods on the validation split, and return the mean accuracy of each one's students there."""
        names = tuple(dict.fromkeys(methods))
        validating = replace(self.request, method=names, iterations=(iterations,), score_on="validation")
        rows = run_request(validating, self.reporter).rows
        # Rows are in the plan's order, method by method and as many for each.
        each = len(rows) // len(names)
        means = [[row["mean"] for row in rows[each * place : each * (place + 1)]] for place in range(len(names))]
        return {
            name: statistics.fmean(known) if len(known := [mean for mean in of if mean is not None]) == each else None
            for name, of in zip(names, means, strict=True)
        }


def tune_request(
    request: Request, over: Sequence[str], trials: int, parallel: int, reporter: Reporter, prune: bool = True
) -> TuneResult:
    """Search options of a method on the validation split, and score the best of them once on test.

    Args:
        request: a run of one method; its points (``iterations``) are where a trial may be pruned.
        over: the options, see `search_space`.
        trials: how many there are.
        parallel: how many are asked for at a time, and run at once.
        reporter: hears of the progress.
        prune: whether a trial ends at a point where its score is below the median of those before it.

    Raises:
        UsageError: an option is wrong, or optuna is not installed.
        DDBenchError: no trial succeeded.
    """
    # Every trial is a run, and would describe the same data again.
    reporter = WithoutRepeats(reporter)
    search = _search(request, over, reporter)
    study = _study(request.seed, trials, prune)
    if all(option.start is not None for option in search.space):
        study.enqueue_trial({option.name: option.first for option in search.space})
    for first in range(0, trials, parallel):
        for trial in _run(search, study, min(parallel, trials - first)):
            search.trials.append(trial)
            reporter.notice(_line(trial, trials))
    done = [trial for trial in search.trials if trial.state == "done"]
    if not done:
        raise UsageError("no trial of the search succeeded: `ddbench status` says why")
    best = max(done, key=lambda trial: (trial.score or 0, -trial.number))
    reporter.notice(f"trial {best.number} is best on validation: {best.method}; scored once on test")
    final = run_request(replace(request, method=(best.method,), iterations=search.points[-1:]), reporter)
    return TuneResult(tuple(search.trials), best, final)


def _search(request: Request, over: Sequence[str], reporter: Reporter) -> _Search:
    require_packages("ddbench tune", {"optuna": "ddbench[tune]"})
    if request.score_on != "test" or request.choose or request.detach:
        raise UsageError("a search scores on validation, then on test: leave out --score-on, --choose and --detach")
    registry = plugins().registry
    methods = [name for text in request.method for name in expand(text)]
    if len(methods) != 1 or len(request.dataset) != 1:
        raise UsageError("a search is for one --method and one --dataset: name one of each")
    (method,) = methods
    dataset = registry.resolve("dataset", expand(request.dataset[0])[0])
    known = traits_of(dataset).defaults
    resolved = registry.resolve("method", known.complete(method))
    space = search_space(over, method, resolved, known.of(method.name))
    points = tuple(sorted(set(request.iterations or known.iterations)))
    return _Search(request, method, space, points, reporter)


def _study(seed: int, trials: int, prune: bool) -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    startup = max(2, min(10, trials // 3))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED) if prune else optuna.pruners.NopPruner()
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
    return optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)


def _run(search: _Search, study: "optuna.Study", count: int) -> Iterator[TrialResult]:
    """Ask for trials, run them side by side point by point, and yield each when all have ended."""
    from optuna.trial import TrialState

    asked = [study.ask() for _ in range(count)]
    values = [{option.name: option.suggest(trial) for option in search.space} for trial in asked]
    names = [search.name(each) for each in values]
    scores: list[dict[int, float]] = [{} for _ in asked]
    states = ["done"] * count
    for point in search.points:
        going_on = [place for place in range(count) if states[place] == "done"]
        if not going_on:
            break
        measured = search.scores([names[place] for place in going_on], point)
        for place in going_on:
            score = measured[names[place]]
            if score is None:
                states[place] = "failed"
                continue
            scores[place][point] = score
            asked[place].report(score, point)
            if point != search.points[-1] and asked[place].should_prune():
                states[place] = "pruned"
    for place, trial in enumerate(asked):
        result = TrialResult(trial.number + 1, names[place], values[place], scores[place], states[place])
        state = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[result.state]
        study.tell(trial, result.score if result.state == "done" else None, state)
        yield result


def _line(trial: TrialResult, trials: int) -> str:
    values = ", ".join(f"{name}={value}" for name, value in trial.values.items())
    points = ", ".join(f"{percent(score)} % at {counted(point, 'iteration')}" for point, score in trial.scores.items())
    state = "" if trial.state == "done" else f" ({trial.state})"
    return f"trial {trial.number} of {trials}: {values}: {points or 'no score'}{state}"
