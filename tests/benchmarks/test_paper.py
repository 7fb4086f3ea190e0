"""The answers to the paper's questions: from scores that were made up, so that the truth is known."""

import csv
import itertools
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from studies import ddbench, small_run, small_words

from harness.report.scores import Scores
from harness.store.packing import open_store
from harness.types.score import Score

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "benchmarks" / "paper"
PACKED = PAPER / "store.tar.xz"
sys.path[:0] = [str(PAPER), str(PAPER.parent)]
from answers.grid import shares  # noqa: E402
from answers.judging import FAILS, HOLDS, OPEN, repeats_needed  # noqa: E402
from answers.page import page  # noqa: E402
from answers.questions import ALONE, HALF, POOLED, answers, published_gap  # noqa: E402
from results import main  # noqa: E402

ARCHITECTURES = ("convnet", "mlp", "vgg11")
NOISE = 0.001
"""Standard deviation of a student; small beside the effects below."""


def score(**changes):
    fields = {
        "store": "s", "dataset": "cifar10", "ipc": 1, "iterations": 300, "method": "dc", "pool": "single",
        "evaluator": "plain", "architecture": "mlp", "protocol": "plain v1", "precision": "bf16", "score_on": "test",
        "scored": "x", "seed": 0, "distillation": 0, "student": 0, "accuracy": 0.2, "collapsed": False,
        "status": "done", "device": "cpu", "seconds": 1.0, "peak_memory": 1, "like": "cifar10",
        "preprocessing": "cifar10", "main": "convnet", **changes,
    }  # fmt: skip
    set_key = "/".join(str(fields[name]) for name in ("method", "pool", "ipc", "iterations", "distillation"))
    key = "/".join([set_key, *(str(fields[name]) for name in ("evaluator", "architecture", "student"))])
    return Score(key=key, set_key=set_key, **fields)


def arm(accuracy, architectures=ARCHITECTURES, distillations=4, students=2, **fields):
    """Students around an accuracy, which may be a function of the architecture."""
    for name, index, student in itertools.product(architectures, range(distillations), range(students)):
        mean = accuracy(name) if callable(accuracy) else accuracy
        noise = random.Random(repr((name, index, student, fields))).gauss(0, NOISE)
        yield score(architecture=name, distillation=index, student=student, accuracy=mean + noise, **fields)


def answered(*arms):
    return answers(Scores(tuple(itertools.chain(*arms)), (), ("s",)))


def words(answer, over):
    return [finding.verdict.word for finding in answer.findings if finding.over == over]


def test_without_scores_no_question_was_run():
    assert [answer.findings for answer in answered()] == [[]] * 6
    assert [answer.findings for answer in answered(arm(0.2))] == [[]] * 6


def test_a_pool_that_gains_holds_and_one_that_loses_does_not():
    gains = {"convnet": 0.0, "mlp": 0.03, "vgg11": -0.03}
    first = answered(arm(0.2), arm(lambda name: 0.2 + gains[name], pool="main-similar"))[0]
    assert [words(first, name) for name in ("mlp", "vgg11", "convnet")] == [[HOLDS], [FAILS], [FAILS]]
    finding = next(each for each in first.findings if each.over == "mlp")
    assert finding.estimate.difference == pytest.approx(0.03, abs=2e-3)
    assert (finding.what, finding.arms) == ("main-similar − single", ((4, 2), (4, 2)))


def test_other_variants_of_a_pool_are_not_taken_for_it():
    scores = [*arm(0.2), *arm(0.3, pool="main-similar[depth=1]"), *arm(0.3, pool="main-similar[warmup=150]")]
    first, second, *_, last = answered(scores)
    assert not first.findings + second.findings + last.findings
    last = answered(scores, arm(0.2, pool="main-similar"))[-1]
    assert {finding.what for finding in last.findings} == {
        "main-similar[depth=1] − main-similar", "main-similar[warmup=150] − main-similar"
    }  # fmt: skip
    assert set(words(last, "mlp")) == {HOLDS}


def test_one_set_of_each_kind_decides_nothing():
    first = answered(arm(0.2, distillations=1), arm(0.4, distillations=1, pool="main-similar"))[0]
    assert {finding.verdict.word for finding in first.findings} == {OPEN}
    assert "nothing is known of other sets" in str(first.findings[0].verdict)


def test_the_claim_that_a_pool_is_worse_holds_where_it_loses():
    second = answered(
        arm(0.1, pool="total-random"), arm(0.15, pool="main-model"), arm(0.2, pool="main-similar")
    )[1]  # fmt: skip
    assert words(second, "mlp") == [HOLDS, HOLDS, HOLDS]
    assert [finding.what for finding in second.findings if finding.over == "mlp"] == [
        "total-random − main-model", "main-model − main-similar", "total-random − main-similar"
    ]  # fmt: skip


@pytest.mark.parametrize(("together", "word"), [(0.25, HOLDS), (0.30, FAILS)])
def test_gains_add_up_or_do_not(together, word):
    taught = {"evaluator": "kd[temperature=2]", "protocol": "kd v1"}
    plain = [arm(0.2), arm(0.22, pool="main-similar")]
    fourth = answered(*plain, arm(0.23, **taught), arm(together, pool="main-similar", **taught))[3]
    (finding,) = (each for each in fourth.findings if each.over == "mlp")
    assert finding.verdict.word == word
    assert finding.estimate.difference == pytest.approx(together - 0.25, abs=5e-3)


def test_an_interaction_that_is_surely_there_but_small_lets_gains_add_up():
    taught = {"evaluator": "kd", "protocol": "kd v1"}
    arms = [arm(0.2), arm(0.22, pool="main-similar"), arm(0.23, **taught), arm(0.26, pool="main-similar", **taught)]
    (finding,) = (each for each in answered(*arms)[3].findings if each.over == "mlp")
    assert finding.estimate.low > 0
    assert finding.verdict.word == HOLDS


@pytest.mark.parametrize(("share", "word"), [(1.0, HOLDS), (0.1, FAILS)])
def test_half_the_cross_entropy_explains_the_gap_where_its_effect_is_as_large(share, word):
    gap = published_gap(10, "vgg11")
    assert gap == pytest.approx((30.40 - 34.97) / 100)
    fields = {"method": POOLED.format(ipc=10), "pool": None, "iterations": None, "ipc": 10, "precision": "unknown",
            "from_file": True, "distillations": 1, "students": 4, "architectures": ("vgg11",)}  # fmt: skip
    fifth = answered(arm(0.35, **fields), arm(0.35 + share * gap, evaluator=HALF, **fields))[4]
    (finding,) = fifth.findings
    assert finding.verdict.word == word
    interval = re.match(r"(\d+) % of the gap, \[(\d+), (\d+)\]", finding.verdict.why)
    measured, low, high = map(int, interval.groups())
    assert (measured, low < 100 * share < high) == (pytest.approx(100 * share, abs=5), True)


def test_published_sets_are_compared_as_sets_of_their_own():
    fields = {"pool": None, "iterations": None, "precision": "unknown", "from_file": True, "distillations": 1}
    first = answered(*(arm(0.2, method=form.format(ipc=1), **fields) for form in (ALONE, POOLED)))[0]
    assert {each.verdict.word for each in first.findings} == {OPEN}


@pytest.mark.parametrize("family", [1, 8])
@pytest.mark.parametrize("spread", [0.0025, 0.006, 0.012])
def test_repeats_needed_find_a_point_as_often_as_they_say_and_fewer_do_not(family, spread):
    import numpy as np
    from scipy.stats import t, ttest_1samp

    pairs = repeats_needed(2 * t.ppf(0.975, 3) * spread / 2, 4, family)
    draws = np.random.default_rng(0).normal(0.01, spread, (8000, pairs))

    def power(number):
        return float((ttest_1samp(draws[:, :number], 0, axis=1).pvalue < 0.05 / family).mean())

    assert power(pairs) > 0.785
    assert pairs > 2
    assert power(pairs - 1) < 0.815


def test_the_grid_counts_each_student_once_and_none_beyond_it(tmp_path):
    config = tmp_path / "table.toml"
    config.write_text(
        'method = ["dc"]\npool = ["single", "main-similar"]\nevaluator = ["plain"]\narchitecture = ["mlp", "vgg11"]\n'
        'ipc = [1]\niterations = [300]\ndistillations = 3\nstudents = 2\ndataset = ["cifar10"]\n'
    )
    scores = list(arm(0.2))
    others = [*arm(0.2, evaluator=HALF), *arm(0.2, dataset="mnist", like="mnist", pool="main-similar")]
    first, second = shares([*scores, *scores, *others], config)
    assert (first.there, first.wanted, second.there) == (12, 12, 0)
    first, _ = shares(arm(0.2, dataset="folder[path=x]"), config)
    assert first.there == 12, "a copy counts"


def test_sets_that_were_lost_and_students_at_chance_are_counted_in_the_second_answer():
    scores = (*arm(0.1, pool="total-random", status="blown-up"), *arm(0.2, pool="main-model"))
    collected = Scores(scores, (), ("s",))
    text = page(collected, "", answers(collected), [], {}, [])
    lost = "4 of 4 sets diverged or blew up, 24 of 24 students ended at chance"
    assert f"* `total-random`, ipc 1, 300 iterations, dc: {lost}" in text
    assert "* `main-model`, ipc 1, 300 iterations, dc: 0 of 4 sets diverged or blew up, 0 of 24 students" in text


def test_the_page_says_what_was_left_out():
    collected = Scores((), ("1 record of s left out",), ("s",))
    text = page(collected, "", answers(collected), [], {}, [], ["failed, and not made since: x"])
    assert "## What was left out\n\n* 1 record of s left out\n* failed, and not made since: x\n" in text


def test_the_page_says_what_was_not_run_and_escapes_nothing_of_a_number():
    scores = (*arm(0.2), *arm(0.22, pool="main-similar"))
    collected = Scores(scores, (), ("s",))
    text = page(collected, "", answers(collected), [PAPER / "table4.toml"], {}, ["machine"])
    assert text.count("* not run") == 5
    assert "48 of 14,400 students" not in text
    assert "`table4.toml`: 0 of" in text
    assert "| 1 | 300 | `dc single` | `plain` | bf16 | 4×2 |" in text


def test_the_authors_own_numbers_stand_beside_ours_run_or_not():
    ours = arm(0.28, method="dc[batch_real=64]"), arm(0.5, ipc=10, iterations=1000)
    others = (
        arm(0.3, method="dsa", pool="main-similar"),
        arm(0.3, method="dsa", score_on="val"),
        arm(0.3, method="dsa", evaluator="kd", protocol="kd v1"),
    )
    collected = Scores(tuple(itertools.chain(*ours, *others)), (), ("s",))
    text = page(collected, "", answers(collected), [], {}, [])
    rows = text.split("## The authors' own numbers")[1].split("##")[0].strip().splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [(method, ipc, mean.split(" ")[0], near.split(" (")[0]) for method, ipc, *_, mean, _, near in cells] == [
        ("`dc[batch_real=64]`", "1", "28.0", "28.3 ±0.5"),
        ("`dc`", "10", "50.0", "44.9 ±0.5"),
        ("`dsa`", "1", "not", "28.8 ±0.7"),
        ("`dsa`", "10", "not", "52.1 ±0.5"),
    ]
    assert "for 1000 iterations" in cells[0][-1]
    assert "for" not in cells[1][-1]


@pytest.mark.parametrize("name", ["table4", "table5", "variants"])
def test_the_grids_are_what_ddbench_runs(name, tmp_path):
    words = ["run", "--config", PAPER / f"{name}.toml", "--dry-run", "--store", tmp_path / "s", "--dataset", "digits"]
    words += ["--iterations", "2", "--distillations", "1", "--students", "1", "--architecture", "mlp"]
    done = ddbench(*words)
    assert done.exit_code == 0, done.output


def test_what_is_committed_is_what_the_command_writes(tmp_path):
    done = subprocess.run(
        [sys.executable, PAPER / "results.py", PACKED.relative_to(ROOT), "--output", tmp_path],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("RESULTS.md", "scores.csv"):
        assert (tmp_path / name).read_text() == (PAPER / name).read_text()
    with (PAPER / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    keys = open_store(PACKED, records_only=True).attempts().keys()
    assert all(row["key"] in keys for row in rows)


def test_the_readme_says_what_the_page_says():
    sentences = (PAPER / "RESULTS.md").read_text().partition("## Which pool helps?\n\n")[2].split("\n\n")[:3]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert all(len(sentence) > 80 and " ".join(sentence.split()) in readme for sentence in sentences)
    assert "](benchmarks/paper/figures/matrix.png)" in readme
    assert (PAPER / "figures" / "matrix.png").stat().st_size > 10_000


def test_the_packed_store_is_sound_and_whole():
    done = ddbench("results", "verify", "--store", PACKED)
    assert done.exit_code == 0, done.output
    assert done.stdout == "344 records of 344 cells read, 0 things wrong, 0 left over\n"


def command(*words):
    return CliRunner().invoke(main, list(map(str, words)))


def test_data_sets_are_not_mixed(tmp_path, data):
    for name, dataset in (("a", "digits"), ("b", f"arrays[path={data}]")):
        small_run(data, tmp_path / name, method="random", dataset=dataset, students=1)
    both = (tmp_path / "a", tmp_path / "b", "--output", tmp_path / "page")
    done = command(*both)
    assert done.exit_code == 2
    assert "name one of them by --dataset" in done.stderr
    done = command(*both, "--dataset", "digits")
    assert done.exit_code == 0, done.stderr
    assert "Data set: `digits`.\n" in (tmp_path / "page" / "RESULTS.md").read_text()
    with (tmp_path / "page" / "scores.csv").open() as file:
        assert [row["dataset"] for row in csv.DictReader(file)] == ["digits"]


def test_what_cannot_be_read_and_what_failed_is_said(tmp_path, data, monkeypatch):
    def fails(self, *_):
        raise RuntimeError("out of luck")

    store = tmp_path / "s"
    small_run(data, store, method="random", students=1)
    record = next(path for path in store.glob("cells/*/*/record.json") if '"kind": "student"' in path.read_text())
    record.write_text("x")
    monkeypatch.setattr("mpdd_plugins.evaluators.plain.Plain.evaluate", fails)
    assert ddbench("run", *small_words(data, store, method="herding")).exit_code == 1
    done = command(store, "--output", tmp_path / "page")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "page" / "RESULTS.md").read_text()
    for shown in (text.split("## What was left out")[1], done.stderr):
        assert str(record) in shown
        assert re.search(r"failed, and not made since: .*herding.*: RuntimeError: out of luck", shown)


def test_where_nothing_can_be_written_ends_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = command(PACKED, "--output", tmp_path / "file" / "page")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == f"Error: cannot write to {tmp_path / 'file' / 'page'}: Not a directory"


def test_a_folder_that_is_no_store_ends_in_one_line(tmp_path):
    (tmp_path / "x").mkdir()
    done = subprocess.run([sys.executable, PAPER / "results.py", tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    shutil.rmtree(tmp_path / "x")
