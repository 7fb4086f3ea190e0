"""Published sets by name: the registry, and whether what is stated of them is reproduced."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies import ARCHITECTURE, EVALUATOR, ddbench, stripes

import harness
from harness import hookimpl
from harness.plugins.discovery import plugins
from harness.plugins.published_sets import published_sets, read_published_sets
from harness.report.reproduction import reproductions
from harness.types.formats.published_set import PublishedSet, StatedAccuracy


@pytest.fixture
def file(tmp_path):
    images, labels = stripes(1, seed=5)
    torch.save({"data": [[torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels)]]}, tmp_path / "res.pt")
    return tmp_path / "res.pt"


@pytest.fixture
def register(tmp_path):
    """Registers a plugin that names a file of published sets, and writes the text into the file."""
    path = tmp_path / "sets.toml"
    plugin = SimpleNamespace(published_sets=hookimpl(lambda: str(path)))
    plugins().manager.register(plugin, name="toy sets")
    yield path.write_text
    plugins().manager.unregister(plugin)


def table(data, accuracy, **more):
    lines = {"file": "res.pt", "source": "nobody", "dataset": f"arrays[path={data},normalize=mnist]", "students": 2}
    lines |= {"evaluator": EVALUATOR, **more}
    keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())
    return f'["toy/stripes/ipc1"]\n{keys}\naccuracy = {{ "{ARCHITECTURE}" = {accuracy} }}\n'


def evaluate(file, store, *more, name="toy/stripes/ipc1"):
    return ddbench("eval", file, "--as", name, "--store", store, *more)


def test_the_released_sets_are_listed_with_checksums_and_what_is_stated():
    listed = json.loads(ddbench("published", "--json").stdout)
    assert len(listed) == 5
    assert all(len(each["sha256"]) == 64 and each["stated"] and each["source"] for each in listed)
    shown = ddbench("published").stdout
    for each in listed:
        assert each["name"] in shown
        assert each["file"] in shown


def test_a_stated_accuracy_is_reproduced_or_not(file, data, tmp_path, register):
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    register(table(data, 0.0, sha256=checksum, note="made up"))
    first = evaluate(file, tmp_path / "store", "--json")
    assert first.exit_code == 0, first.stderr
    assert "SHA-256" not in first.stderr
    answer = json.loads(first.stdout)
    (row,), (compared,) = answer["rows"], answer["published"]["accuracies"]
    assert row["students"] == 2
    assert compared["measured"] == row["mean"] > 0.05
    assert not compared["reproduced"]
    shown = evaluate(file, tmp_path / "store").stdout
    assert f"{ARCHITECTURE}: " in shown
    assert "0.0 stated: not reproduced (+" in shown
    assert "note: made up" in shown
    register(table(data, [round(100 * row["mean"] + 0.9, 4), 0.0], sha256=checksum))
    again = evaluate(file, tmp_path / "store")
    assert "stated: reproduced" in again.stdout
    result = harness.evaluate(file, published_set="toy/stripes/ipc1", store=tmp_path / "store")
    assert [each.reproduced for each in result.reproductions] == [True]


def test_what_is_typed_overrides_and_another_evaluator_is_not_compared(file, data, tmp_path, register):
    register(table(data, 50))
    other = ("--evaluator", "plain[epochs=2,augment=none]", "--students", "1")
    done = evaluate(file, tmp_path / "store", *other, "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["rows"][0]["students"] == 1
    assert "published" not in answer
    assert f"toy/stripes/ipc1 is not compared with what is stated: that is for --evaluator {EVALUATOR}" in done.stderr
    assert "the checksum of toy/stripes/ipc1 is not known, so res.pt may be another set" in done.stderr


def test_another_file_is_noticed(file, data, tmp_path, register):
    register(table(data, 50, sha256="0" * 64))
    done = evaluate(file, tmp_path / "store")
    assert done.exit_code == 0
    line = "res.pt is not the file that was published as toy/stripes/ipc1: its SHA-256 differs"
    assert line in done.stderr
    assert line in done.stdout


def test_an_unknown_name_ends_in_one_line(file, tmp_path):
    done = evaluate(file, tmp_path / "store", name="dc/cifar10/ipc2")
    assert done.exit_code == 2
    assert done.stderr.startswith("ddbench: error: there is no published set 'dc/cifar10/ipc2': did you mean")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x", "cannot be read"),
        ("a = 1", "a: it is not a table"),
        ("[a]\nfile = 'x'\nsource = 'y'", "a: it lacks the key 'dataset'"),
        ("[a]\nfile = 'x'\nsource = 'y'\ndataset = 'z'\nsha = ''", "a: there is no key 'sha': did you mean 'sha256'"),
        (
            "[a]\nfile = 'x'\nsource = 'y'\ndataset = 'z'\nsha256 = 'q'",
            "a: sha256 is 'q', but a checksum has",
        ),
        ("[a]\nfile = 'x'\nsource = 'y'\ndataset = 'z'\naccuracy.mlp = 'q'", "a: accuracy 'q' is neither a mean nor"),
        ("[a]\nfile = 'x'\nsource = 'y'\ndataset = 'z'\naccuracy.mlp = 120", "a: mlp has 120 %"),
        ("[a]\nfile = 3\nsource = 'y'\ndataset = 'z'", "a: file is 3, but it has to be a printable text"),
        ('["dc/cifar10/ipc1"]\nfile = "x"\nsource = "y"\ndataset = "z"', "is in another plugin's file already"),
    ],
)
def test_a_faulty_file_costs_only_its_own_sets(text, complaint, register):
    register(text)
    known = published_sets(plugins())
    assert "dc/cifar10/ipc1" in known.sets
    (line,) = known.complaints
    assert complaint in line
    done = ddbench("published")
    assert done.exit_code == 0
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_plugin_that_raises_costs_only_its_own_sets():
    def raises():
        raise RuntimeError("lost")

    plugin = SimpleNamespace(published_sets=hookimpl(raises))
    plugins().manager.register(plugin, name="lost")
    try:
        known = published_sets(plugins())
    finally:
        plugins().manager.unregister(plugin)
    assert known.complaints == ("published sets of lost: published_sets() of lost raised RuntimeError: lost",)
    assert len(known.sets) == 5


def test_a_table_gives_all_fields(tmp_path):
    path = tmp_path / "sets.toml"
    path.write_text(
        '[a]\nfile = "f"\nsource = "s"\ndataset = "mnist"\nformat = "idc[factor=2]"\nentry = 1\nstep_size = 0.01\n'
        "accuracy = { mlp = [50, 2.5], convnet = 60.5 }\n"
    )
    (published,) = read_published_sets(path)
    stated = {"mlp": StatedAccuracy(0.5, 0.025), "convnet": StatedAccuracy(0.605)}
    wanted = PublishedSet("a", "f", "s", "mnist", format="idc[factor=2]", entry=1, step_size=0.01, stated=stated)
    assert published == wanted


@given(
    measured=st.floats(0, 1), stated=st.floats(0, 1), ours=st.floats(0, 0.1), theirs=st.floats(0, 0.1),
    students=st.integers(2, 20), published=st.integers(1, 20),
)  # fmt: skip
def test_the_rule_is_one_point_or_two_standard_errors(measured, stated, ours, theirs, students, published):
    row = {"architecture": "mlp", "mean": measured, "std_students": ours, "students": students}
    known = PublishedSet(
        "a", "f", "s", "mnist", students=published, stated={"mlp": StatedAccuracy(stated, theirs)}
    )  # fmt: skip
    (answer,) = reproductions([row], known)
    error = (ours**2 / students + theirs**2 / published) ** 0.5
    assert answer.standard_error == pytest.approx(error)
    distance = abs(measured - stated)
    if abs(distance - max(0.01, 2 * error)) > 1e-6:
        assert answer.reproduced == (distance <= max(0.01, 2 * error))
