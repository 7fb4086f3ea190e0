"""`ddbench tune`: options searched on the validation split."""

import json
import math
import sys

import pytest
from studies import ARCHITECTURE, EVALUATOR, ddbench

from harness import UsageError
from harness.api import tuning
from harness.api.run_result import RunResult
from harness.api.search_space import search_space
from harness.api.tuning import tune_request
from harness.planning.request import Request
from harness.plugins.discovery import plugins
from harness.running.reporter import Reporter
from harness.types.names import parse_name

pytest.importorskip("optuna")


def space(*over, method="dc", defaults=None):
    name = parse_name(method)
    return search_space(over, name, plugins().registry.resolve("method", name), defaults or {})


@pytest.mark.parametrize(
    ("over", "method", "shown", "start"),
    [
        ("dc.lr_img", "dc", "lr_img: 0.001 to 10 (logarithmic)", "0.1"),
        ("dc.lr_img", "dc[lr_img=2]", "lr_img: 0.02 to 200 (logarithmic)", "2"),
        ("dc.lr_img=0.5..2", "dc", "lr_img: 0.5 to 2", None),
        ("dc.lr_img=0.05..2", "dc", "lr_img: 0.05 to 2 (logarithmic)", "0.1"),
        ("dc.batch_real", "dc", "batch_real: 64 to 1024 (logarithmic)", "256"),
        ("dc.batch_real=[16,64]", "dc", "batch_real: 16, 64", None),
        ("dc.momentum_img", "dc", "momentum_img: 0 to 0.999", "0.5"),
        ("dc.init", "dc", "init: noise, real", "noise"),
        ("idc.as=[pixels,multi-formation[factor=2]]", "idc", "as: pixels, multi-formation[factor=2]", None),
        ("frepo.margin", "frepo", "margin: false, true", "true"),
    ],
)
def test_ranges_are_typed_declared_or_around_the_start(over, method, shown, start):
    (searched,) = space(over, method=method)
    assert (str(searched), searched.start) == (shown, start)


def test_a_data_sets_defaults_are_the_start():
    (searched,) = space("dc.batch_real", defaults={"batch_real": "64"})
    assert (searched.start, searched.low, searched.high) == ("64", 16, 256)


@pytest.mark.parametrize(
    ("over", "complaint"),
    [
        ((), "--over names what is searched, for instance --over dc.lr_img"),
        (("lr_img",), "--over lr_img: write dc.OPTION: a search varies options of the method"),
        (("kd.temperature",), "write dc.OPTION"),
        (("dc.lr",), "--over dc.lr: dc has no option 'lr': did you mean"),
        (("dc.lr_img", "dc.lr_img=1..2"), "lr_img is named twice"),
        (("dc.lr_img=2..1",), "write a range as LOW..HIGH, or values as [A,B]"),
        (("dc.lr_img=a..b",), "write a range as LOW..HIGH"),
        (("dc.as",), "as is no number: write its values, dc.as=[A,B]"),
        (("dc.outer",), "its default gives no range: write dc.outer=LOW..HIGH"),
    ],
)
def test_what_cannot_be_searched_ends_in_one_line(over, complaint):
    with pytest.raises(UsageError) as error:
        space(*over)
    assert complaint in str(error.value)


class Curve:
    """Stands for runs: accuracy falls with the distance of lr_img from 1, and rises with iterations."""

    def __init__(self, fails_at=None):
        self.requests, self.fails_at = [], fails_at

    def __call__(self, request, reporter):
        self.requests.append(request)
        if len(self.requests) == self.fails_at:
            raise KeyboardInterrupt
        (iterations,) = request.iterations
        rates = [float(dict(parse_name(method).options)["lr_img"]) for method in request.method]
        rows = [{"mean": 0.9 - 0.1 * abs(math.log10(rate)) - 1 / (10 + iterations)} for rate in rates]
        return RunResult(request.store, [], rows)


def search(monkeypatch, curve, trials=12, parallel=1, points=(10, 100), **changes):
    monkeypatch.setattr(tuning, "run_request", curve)
    request = Request(method=("dc[lr_img=0.001]",), iterations=points, **changes)
    return tune_request(request, ["dc.lr_img=0.0001..100"], trials, parallel, Reporter())


def test_a_bad_start_is_left_within_twelve_trials(monkeypatch):
    for seed in range(5):
        curve = Curve()
        result = search(monkeypatch, curve, seed=seed)
        first, best = result.trials[0], result.best
        assert first.values == {"lr_img": "0.001"}
        assert best.score > first.score + 0.1
        assert [request.score_on for request in curve.requests[:-1]] == ["validation"] * (len(curve.requests) - 1)
        final = curve.requests[-1]
        assert (final.score_on, final.method, final.iterations) == ("test", (best.method,), (100,))


def test_the_seed_alone_decides_the_trials(monkeypatch):
    first, same, other = (search(monkeypatch, Curve(), seed=seed).trials for seed in (0, 0, 1))
    assert first == same != other


def test_an_interrupted_search_goes_on_with_the_same_trials(monkeypatch):
    whole = search(monkeypatch, Curve()).trials
    interrupted = Curve(fails_at=9)
    with pytest.raises(KeyboardInterrupt):
        search(monkeypatch, interrupted)
    again = Curve()
    assert search(monkeypatch, again).trials == whole
    assert again.requests[:9] == interrupted.requests


def test_bad_trials_are_pruned_at_their_first_point_and_never_best(monkeypatch):
    trials = search(monkeypatch, Curve(), trials=15).trials
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    assert all(list(trial.scores) == [10] for trial in pruned)
    done = [trial.scores[10] for trial in trials if trial.state == "done"]
    assert max(trial.scores[10] for trial in pruned) <= max(done)
    assert not any(trial.state == "pruned" for trial in trials[:3])


def test_trials_side_by_side_are_one_run(monkeypatch):
    curve = Curve()
    result = search(monkeypatch, curve, trials=7, parallel=3, points=(10,))
    assert [len(request.method) for request in curve.requests] == [3, 3, 1, 1]
    assert [trial.number for trial in result.trials] == [1, 2, 3, 4, 5, 6, 7]
    assert all(f"lr_img={trial.values['lr_img']}" in trial.method for trial in result.trials)


def test_failed_trials_count_for_nothing(monkeypatch):
    class Failing(Curve):
        def __call__(self, request, reporter):
            result = super().__call__(request, reporter)
            for row in result.rows if len(self.requests) == 1 else ():
                row["mean"] = None
            return result

    trials = search(monkeypatch, Failing()).trials
    assert (trials[0].state, trials[0].score) == ("failed", None)
    assert trials[1].state == "done"


def test_a_small_search_through_the_command(data, tmp_path):
    words = (
        "tune", "--method", "dm[batch_real=4]", "--over", "dm.lr_img=0.01..100", "--trials", "3", "--iterations", "1,2",
        "--dataset", f"arrays[path={data}]", "--pool", f"single[main={ARCHITECTURE}]", "--architecture", ARCHITECTURE,
        "--evaluator", EVALUATOR, "--students", "1", "--store", tmp_path / "store", "--executor", "inline",
    )  # fmt: skip
    done = ddbench(*words, "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [trial["number"] for trial in answer["trials"]] == [1, 2, 3]
    (row,) = answer["result"]["rows"]
    assert row["score_on"] == "test"
    best = answer["trials"][answer["best"] - 1]["method"]
    assert row["method"] == str(plugins().registry.resolve("method", best))
    described = [line for line in done.stderr.splitlines() if "3 classes" in line]
    assert len(described) == len(set(described)) == 2, "the split for validation, and the whole training set, once each"
    shown = ddbench(*words)
    assert shown.exit_code == 0
    assert f"{answer['best']} (best)" in shown.stdout
    assert "accuracy on validation in %" in shown.stdout
    assert "started" not in shown.stderr, "everything was in the store"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"score_on": "validation"}, "leave out --score-on"),
        ({"method": ("dc", "dm")}, "one --method and one --dataset"),
        ({"method": ("dc[lr_img=[1,2]]",)}, "one --method and one --dataset"),
        ({"dataset": ("digits", "mnist")}, "one --method and one --dataset"),
    ],
)
def test_a_search_is_for_one_method_and_one_data_set(changes, complaint):
    request = Request(**{"method": ("dc",), **changes})
    with pytest.raises(UsageError, match=complaint):
        tune_request(request, ["dc.lr_img"], 2, 1, Reporter())


def test_without_optuna_one_line_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = ddbench("tune", "--method", "dc", "--over", "dc.lr_img")
    assert done.exit_code == 2
    assert done.stderr == (
        "ddbench: error: ddbench tune needs the package optuna, which is not installed: pip install 'ddbench[tune]'\n"
    )
