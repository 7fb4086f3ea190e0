"""Labels of arms: shown everywhere, and part of no number and no key."""

import json
import re

import pytest
from studies import ddbench, numbers, small_run, small_words, write_arrays
from synthetic import study, write_store

from harness.errors import UsageError
from harness.planning.request import request_from
from harness.planning.run import Run
from harness.types.names import read_labels, split_label

pytestmark = pytest.mark.usefixtures("blank_pictures")

SINGLE, MIX = "single[main=mlp[width=8]]", "mix[of=mlp[width=8]:1+mlp[width=6]:1]"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A store whose run labelled a pool, a method and an evaluator."""
    folder = tmp_path_factory.mktemp("labels")
    words = small_words(write_arrays(folder / "a.npz"), folder / "store", method="match=dc[batch_real=4]",
                        distillations=2, pool=f"{SINGLE},both={MIX}", evaluator=None,
                        label="short=plain[epochs=2]")  # fmt: skip
    result = ddbench("run", *words, "--evaluator", "plain[epochs=2]")
    assert result.exit_code == 0, result.output
    return folder, result.stdout


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("similar=main-similar[main=0.8]", ("similar", "main-similar[main=0.8]")),
        ("main-similar[main=0.8]", ("", "main-similar[main=0.8]")),
        ("dc", ("", "dc")),
        ("a b = dc[lr=1]", ("a b", "dc[lr=1]")),
        ("file:a=b.pt", ("", "file:a=b.pt")),
        ('folder[path="a=b"]', ("", 'folder[path="a=b"]')),
    ],
)
def test_a_label_is_what_stands_before_a_name(text, pair):
    assert split_label(text) == pair


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["x"], "is not LABEL=NAME"),
        (["x="], "is not LABEL=NAME"),
        (["a[b=dc"], "has reserved characters: ["),
        (["a:b=dc"], "has reserved characters: :"),
        (["a\x07=dc"], "has reserved characters: '\\x07'"),
        ([f"{'a' * 41}=dc"], "write 1 to 40 characters"),
        (["all=dc"], "is not possible"),
        (["x=dc[lr_img=[1,2]]"], "is for a single arm"),
        (["x=all"], "is for a single arm"),
        (["x=dc", "x=dm"], "stands for dc and for dm"),
        (["x=dc", "y=dc"], "has the labels 'x' and 'y'"),
    ],
)
def test_what_cannot_be_a_label_is_refused(texts, says):
    with pytest.raises(UsageError) as refusal:
        read_labels(texts)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UsageError, match="label"):
        request_from({"label": texts})


def test_labels_are_read_from_names_options_and_tables():
    request = request_from({"pool": "a=single,main-similar", "labels": {"b": "dc"}, "label": ["c=mlp"]})
    assert request.pool == ("single", "main-similar")
    assert read_labels(request.label) == {"a": "single", "b": "dc", "c": "mlp"}


def test_no_key_and_no_number_depends_on_a_label(labelled, tmp_path):
    folder, _ = labelled
    small_run(folder / "a.npz", tmp_path, pool=[SINGLE, MIX], distillations=2)
    assert numbers(tmp_path) == numbers(folder / "store")
    plain, other = ({"method": "dc", "pool": pool} for pool in ("single", "x=single"))
    assert Run(request_from(plain)).key == Run(request_from(other)).key


def test_a_run_shows_them(labelled):
    _, text = labelled
    heading = text.splitlines()[1].split()
    assert heading == ["student", "single", "both", "difference"]
    assert "match  short" in text.splitlines()[0]
    assert f"both: {MIX}" in text
    assert text.splitlines()[-1].startswith("both against single: ")


def test_the_details_of_a_run_show_them(labelled):
    folder, _ = labelled
    words = small_words(folder / "a.npz", folder / "store", method="match=dc[batch_real=4]", distillations=2,
                        pool=f"{SINGLE},both={MIX}")  # fmt: skip
    text = ddbench("run", *words, "--details").stdout
    assert "│ both " in text
    assert f"both: {MIX}" in text
    assert "match" in text.splitlines()[0]
    assert text.splitlines()[-1].startswith("both against single: ")


def test_compare_shows_those_of_the_runs(labelled):
    folder, _ = labelled
    text = ddbench("compare", folder / "store").stdout
    assert text.splitlines()[1].split() == ["student", "single", "both", "difference"]
    assert f"both: {MIX}" in text
    content = json.loads(ddbench("compare", folder / "store", "--format", "json").stdout)
    assert {(row["value"], row["label"]) for row in content["rows"]} == {(SINGLE, None), (MIX, "both")}
    assert {row["method"] for row in content["rows"]} == {"dc[batch_real=4]"}


def test_compare_names_arms_of_any_store(tmp_path):
    write_store(tmp_path, study(architectures=("mlp", "convnet")))
    text = ddbench("compare", tmp_path, "--label", "ours=main-similar", "--label", "net=convnet").stdout
    plain = json.loads(ddbench("compare", tmp_path, "--format", "json").stdout)["rows"]
    rows = json.loads(ddbench("compare", tmp_path, "--format", "json", "--label", "ours=main-similar").stdout)["rows"]
    assert [{**row, "label": None} for row in rows] == plain
    assert text.splitlines()[1].split() == ["student", "single", "ours", "difference"]
    assert text.splitlines()[-1].startswith("ours against single: ")
    assert "net " in text
    for baseline in ("ours", "main-similar"):
        words = ("--baseline", baseline, "--label", "ours=main-similar")
        assert "single against ours: " in ddbench("compare", tmp_path, *words).stdout


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("ours=nothing", "no score has this name"),
        ("single=main-similar", "is the name of another arm"),
        ("o[=single", "reserved characters"),
    ],
)
def test_compare_refuses_what_stands_for_nothing_or_clashes(tmp_path, label, says):
    result = ddbench("compare", write_store(tmp_path, study(architectures=("mlp",))), "--label", label)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert says in line


def test_a_run_refuses_a_label_that_is_another_arms_name(labelled, tmp_path):
    folder, _ = labelled
    result = ddbench("run", *small_words(folder / "a.npz", tmp_path, pool=f"{SINGLE},single={MIX}"))
    assert result.exit_code == 2
    assert "label 'single'" in result.stderr


def test_a_label_of_nothing_is_noted(labelled):
    folder, _ = labelled
    words = small_words(folder / "a.npz", folder / "other", label="x=dm")
    assert "label x: nothing here is called dm" in ddbench("run", *words, "--dry-run").stdout


def test_status_and_results_show_them(labelled):
    folder, _ = labelled
    words = ("--store", folder / "store")
    assert f"match through {SINGLE}, both on" in ddbench("status", *words).stdout
    listed = ddbench("results", "list", *words).stdout
    assert "through both on" in listed
    assert MIX not in listed
    cells = json.loads(ddbench("results", "list", *words, "--json").stdout)["cells"]
    assert {cell["labels"].get("pool") for cell in cells} == {"both", None}
    key = next(cell["key"] for cell in cells if cell["labels"].get("pool"))
    assert json.loads(ddbench("results", "show", key, *words, "--json").stdout)["labels"]["method"] == "match"


def test_the_page_shows_them(labelled, tmp_path):
    folder, _ = labelled
    assert ddbench("report", folder / "store", "--output", tmp_path / "page.html").exit_code == 0
    text = (tmp_path / "page.html").read_text()
    assert "both is compared with" in text
    assert re.search(r"<th[^>]*>\s*match\s*<", text)
