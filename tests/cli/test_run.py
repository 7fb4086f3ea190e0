"""`ddbench run` through its front door."""

import json
import os
import signal

import numpy as np
import pytest
from studies import KD, METHOD, POOL, SMALL, ddbench, records, small_run, small_words, stripes, write_arrays

pytestmark = pytest.mark.usefixtures("toys")


def assert_refused(result, *words):
    """Exit code 2 with one line."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("ddbench: error: ")
    for word in words:
        assert word in line


ARRAYS = {
    "NaN": ({"x_train": np.full((36, 16, 16), np.nan)}, "NaN"),
    "beyond 1": ({"x_train": np.full((36, 16, 16), 200.0)}, "scale them"),
    "shape": ({"x_train": np.zeros((36, 16), np.uint8)}, "x_train"),
    "sizes": ({"x_test": stripes(6, size=20)[0]}, "but test images"),
    "label": ({"y_test": np.full(18, 7)}, "label 7"),
    "empty class": ({"y_test": np.zeros(18, int)}, "no image of class"),
    "objects": ({"x_train": np.array([{}, {}])}, "plain arrays"),
    "too few labels": ({"y_train": np.zeros(3, int)}, "36 images"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_bad_images_are_refused(tmp_path, what):
    changes, says = ARRAYS[what]
    data = write_arrays(tmp_path / "a.npz", **changes)
    assert_refused(ddbench("run", *small_words(data, tmp_path / "store")), says, "a.npz")
    assert os.listdir(tmp_path) == ["a.npz"]


def test_images_too_small_for_an_architecture_are_refused(tmp_path):
    data = write_arrays(tmp_path / "a.npz", size=4)
    for changes in (
        {"architecture": "lenet"},
        {"pool": "single[main=lenet]"},
        {"evaluator": "kd[teacher=lenet]"},
    ):
        words = small_words(data, tmp_path / "store", **{"pool": "single[main=mlp[width=8]]", **changes})
        assert_refused(ddbench("run", *words), "4")
    assert os.listdir(tmp_path) == ["a.npz"]


def test_names_of_classes_with_markup_are_text_in_errors(tmp_path):
    data = write_arrays(tmp_path / "a.npz", classes=np.array(["[bold]", "[/red]", "z"]))
    assert_refused(ddbench("run", *small_words(data, tmp_path / "store", ipc=13)), "'[bold]'")


# --- the config file --------------------------------------------------------------------------------------------------


def config(path, text):
    path.write_text(text)
    return path


def test_a_config_file_means_what_the_options_mean(data, tmp_path):
    text = "\n".join(f"{key} = {json.dumps([value] if key == 'iterations' else value)}" for key, value in SMALL.items())
    text += f'\ndataset = "arrays[path={data}]"\nstore = "{tmp_path / "store"}"\nscore-on = "test"\n'
    file = config(tmp_path / "a.toml", text)
    from_file = json.loads(ddbench("run", "--config", file, "--json").stdout)
    assert from_file == json.loads(ddbench("run", *small_words(data, tmp_path / "store"), "--json").stdout)
    more = json.loads(ddbench("run", "--config", file, "--students", 3, "--json").stdout)
    assert more["rows"][0]["students"] == 3  # the option wins
    assert set(from_file["cells"][0]) == {"key", "kind", "state", "label"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('methd = "dc"', ["'methd'", "'method'"]),
        ("students = ", ["cannot be read"]),
        ('students = "two"', ["students", "whole number"]),
        ("students = true", ["students", "whole number"]),
        ("students = 2.5", ["students", "whole number"]),
        ("students = [1, 2]", ["students takes one value"]),
        ("students = 0", ["students is 0"]),
        ("method = 3", ["method"]),
        ('iterations = "1,2"', ["iterations", "whole number"]),
        ('score-on = "train"', ["score_on", "validation"]),
        ('precision = "fp8"', ["precision", "bf16"]),
        ('rerun-stale = "yes"', ["rerun_stale"]),
        ("store = 5", ["store"]),
        ("[run]\nstudents = 2", ["run"]),
        ('method = "dc[lr=1]"', ["'lr'", "lr_img"]),
    ],
)
def test_a_config_file_that_cannot_be_meant_is_refused(data, tmp_path, text, says):
    file = config(tmp_path / "a.toml", text)
    key = text.strip("[").split("]")[0].split()[0].replace("-", "_")
    words = small_words(data, tmp_path / "store", **{key: None} if key in SMALL else {})
    if key == "store":
        words = words[: words.index("--store")] + words[words.index("--store") + 2 :]
    assert_refused(ddbench("run", *words, "--config", file), *says)
    assert os.listdir(tmp_path) == ["a.toml"]


@pytest.mark.parametrize("name", ["a folder", "bytes.toml"])
def test_a_config_that_is_no_text_is_refused(data, tmp_path, name):
    if name == "a folder":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    assert_refused(ddbench("run", *small_words(data, tmp_path / "s"), "--config", tmp_path / name), name)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_states_and_changes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    words = small_words(data, store, evaluator=KD)
    first = ddbench("run", *words, "--dry-run")
    assert first.exit_code == 0
    assert os.listdir(tmp_path) == []
    assert first.stdout.count("missing ") == 5
    assert "5 of 5 cells are missing, " in first.stdout
    small_run(data, store, evaluator=KD)
    before = sorted(path.stat().st_mtime_ns for path in store.rglob("*"))
    second = ddbench("run", *words, "--students", "3", "--dry-run")
    assert second.stdout.count("done ") == 5
    assert "2 of 7 cells are missing" in second.stdout
    assert sorted(path.stat().st_mtime_ns for path in store.rglob("*")) == before


def test_a_dry_run_as_json(data, tmp_path):
    result = ddbench("run", *small_words(data, tmp_path / "store"), "--dry-run", "--json")
    planned = json.loads(result.stdout)
    assert planned["rows"] == []
    assert {cell["state"] for cell in planned["cells"]} == {"missing"}
    assert planned["estimate_seconds"] > 0


def test_the_estimate_grows_with_the_work(data, tmp_path):
    def seconds(**changes):
        result = ddbench("run", *small_words(data, tmp_path / "none", **changes), "--dry-run", "--json")
        return json.loads(result.stdout)["estimate_seconds"]

    base = seconds(iterations=1000)
    assert seconds(iterations=2000) > 1.5 * base
    assert seconds(iterations=1000, distillations=2) == pytest.approx(2 * base, rel=0.01)
    assert seconds(method="still") is None  # it does not report its work


def test_a_dry_run_of_a_choice_says_that_there_is_one(data, tmp_path):
    words = small_words(data, tmp_path / "none", evaluator="kd[temperature=[1,2]]", choose="kd.temperature")
    result = ddbench("run", *words, "--dry-run")
    assert result.exit_code == 0
    assert "scored on validation; then only the chosen ones" in result.stdout
    assert "validation is 3 of 36 training images, seed 0" in result.stdout


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "dc[lr_img=[0.1,1]]", "choose": "dc.lr_img"},
        {"evaluator": "plain[epochs=2,lr=[0.01,0.1]]", "choose": "plain.lr"},
        {"pool": "single[main=[mlp[width=8],mlp[width=64]]]", "choose": "single.main"},
        {"method": "dc[lr_img=[0.1,1]]", "choose": "dc.lr_img", "keep_hold_out": ""},
    ],
    ids=["method", "evaluator", "pool", "kept"],
)
def test_the_estimate_of_a_choice_is_that_of_both_stages(data, tmp_path, changes):
    def planned(**how):
        words = [word for word in small_words(data, tmp_path / "store", iterations=500, **how) if word]
        return json.loads(ddbench("run", *words, "--dry-run", "--json").stdout)

    swept = {key: value for key, value in changes.items() if key not in ("choose", "keep_hold_out")}
    both, first = planned(**changes)["estimate_seconds"], planned(**swept, score_on="validation")["estimate_seconds"]
    ((kind, names),) = swept.items()
    head, _, values = names.partition("=[")
    alone = [f"{head}={value}]" for value in values[:-2].split(",")]
    second = [planned(**{kind: name}, **{key: "" for key in changes if key == "keep_hold_out"}) for name in alone]
    assert both == pytest.approx(first + max(plan["estimate_seconds"] for plan in second))
    assert both > 1.2 * first


def test_a_dry_run_after_the_first_stage_shows_the_choice_and_the_cells_that_are_left(data, tmp_path):
    swept = {"evaluator": "scripted[which=[b,a]]", "students": 1}
    first = small_words(data, tmp_path, **swept, score_on="validation")
    words = small_words(data, tmp_path, **swept, choose="scripted.which")
    assert ddbench("run", *first).exit_code == 0
    shown = ddbench("run", *words, "--dry-run")
    assert "the scores in the store choose scripted[which=a]" in shown.stdout
    cells = json.loads(ddbench("run", *words, "--dry-run", "--json").stdout)["cells"]
    assert [cell["state"] for cell in cells] == ["done"] * 3 + ["missing"] * 2
    run_cells = json.loads(ddbench("run", *words, "--json").stdout)["cells"]
    assert {cell["key"] for cell in run_cells} == {cell["key"] for cell in cells}


def test_a_choice_is_not_ordered_and_left(data, tmp_path):
    words = small_words(data, tmp_path / "none", evaluator="scripted[which=[b,a]]", choose="scripted.which")
    for more in ([], ["--keep-hold-out"], ["--dry-run"]):
        refused = ddbench("run", *words, "--detach", *more)
        assert refused.exit_code == 2
        assert "leave out --detach" in refused.stderr


# --- what it prints ---------------------------------------------------------------------------------------------------


def test_the_table_goes_to_stdout_and_the_progress_to_stderr(data, tmp_path):
    result = ddbench("run", *small_words(data, tmp_path))
    assert result.exit_code == 0
    assert "protocol: plain quick v1 + epochs=2" in result.stdout
    assert f"store: {tmp_path}" in result.stdout
    assert "2 students on each of 1 distillation" in result.stdout
    assert "3 cells to make, 0 in the store" in result.stderr
    assert result.stderr.count("done  ") == 3
    assert "\x1b" not in result.output


def test_lists_are_given_by_commas_or_again(data, tmp_path):
    words = small_words(data, tmp_path, iterations="0,1", method=METHOD, pool=POOL)
    result = ddbench("run", *words, "--iterations", "2", "--json")
    assert [row["iterations"] for row in json.loads(result.stdout)["rows"]] == [0, 1, 2]


def test_an_interrupted_run_says_so_and_goes_on_later(data, tmp_path, monkeypatch):
    import toy_plugins

    def step(self, iteration, networks):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(toy_plugins.Still, "step", step)
        result = ddbench("run", *small_words(data, tmp_path, method="still"))
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("ddbench: stopped at once")
    assert not records(tmp_path)
    assert not small_run(data, tmp_path, method="still").failed


def test_the_estimate_counts_teachers(data, tmp_path):
    def seconds(evaluator):
        words = small_words(data, tmp_path / "store", evaluator=evaluator)
        return json.loads(ddbench("run", *words, "--dry-run", "--json").stdout)["estimate_seconds"]

    assert seconds("kd[teacher=vgg11]") > 5 * seconds("plain")


def test_a_step_that_measures_nothing_is_a_line_without_an_open_end(data, tmp_path):
    result = ddbench("run", *small_words(data, tmp_path / "store", method="random", students=1))
    assert result.exit_code == 0, result.stderr
    assert "iteration 1 of 1" in result.stderr.splitlines()
