"""Formats of plugins beside ours: which of them reads a file, and what a broken one does to the others."""

import json

import pytest
import torch
from click.testing import CliRunner
from fake_distributions import distribution, registering
from toys import toy_problem, toy_set

import harness
from harness.cli.group import cli
from harness.errors import DataError, PluginError, UsageError
from harness.plugins.discovery import plugins
from harness.plugins.set_formats import read_content, writer_for
from harness.plugins.stored_sets import load_stored
from harness.types.formats import OWN_FORMAT, Reading

__all__ = ["distribution"]

TEXT = """
import torch
from harness import Content, SetFormat

class Text(SetFormat):
    suffixes = (".npz", ".txt")

    def recognises(self, path):
        return path.is_file() and path.read_bytes()[:4] == b"text"

    def read(self, path, entry):
        return Content(path.name, torch.zeros(3, 1, 16, 16), torch.arange(3), pixels=True, notes=("read as\\ntext",))

    def write(self, distilled, path):
        path.write_text("text")
        return ["all of it"]
"""


@pytest.fixture
def text(distribution):
    distribution("acme", registering("format", "text", "acme:Text") + TEXT)


def changed(distribution, **methods):
    """A format whose methods do something else."""
    body = "".join(f"    def {name}(self, *words):\n        {does}\n" for name, does in methods.items())
    source = f"{TEXT}\nclass Other(Text):\n{body}"
    distribution("odd", registering("format", "odd", "odd:Other") + source)


def test_a_file_is_read_by_the_format_that_recognises_it(text, tmp_path):
    (tmp_path / "a.bin").write_text("text of any kind")
    content = read_content(tmp_path / "a.bin", Reading())
    assert (content.where, content.notes) == ("a.bin", ("read as\\ntext",))
    read = harness.load_distilled(tmp_path / "a.bin", preprocessing=toy_problem().preprocessing)
    assert read.label_kind == "hard"


def test_what_two_formats_recognise_has_to_be_said(text, tmp_path):
    (tmp_path / "a.npz").write_text("text")
    with pytest.raises(UsageError, match=r"^a.npz may be of several formats: say --from npz or text$"):
        read_content(tmp_path / "a.npz", Reading())
    assert len(read_content(tmp_path / "a.npz", Reading(format="text")).images) == 3


def test_a_suffix_that_two_formats_write_has_to_be_said(text, tmp_path):
    with pytest.raises(UsageError, match=r"several formats have the suffix '.npz': say --to npz or text$"):
        writer_for(tmp_path / "a.npz", None)
    assert harness.save_distilled(toy_set(toy_problem()), tmp_path / "a.txt") == ("all of it",)


def test_two_formats_of_one_name_are_claimed_as_any_component(text, distribution, tmp_path):
    distribution("other", registering("format", "text", "other:Text") + TEXT)
    (tmp_path / "a.bin").write_text("text")
    for ask in (lambda: read_content(tmp_path / "a.bin", Reading(format="text")), lambda: writer_for(tmp_path, "text")):
        with pytest.raises(UsageError, match="claimed by two plugins: write acme:text or other:text"):
            ask()
    with pytest.raises(UsageError, match="may be of several formats: say --from acme:text or other:text"):
        read_content(tmp_path / "a.bin", Reading())
    assert len(read_content(tmp_path / "a.bin", Reading(format="other:text")).images) == 3


@pytest.mark.parametrize("source", ["raise ValueError('no')", "return 1", "raise SystemExit"])
def test_a_format_that_breaks_while_it_looks_is_left_out_with_a_note(distribution, tmp_path, source):
    changed(distribution, recognises=source)
    harness.save_distilled(toy_set(toy_problem()), tmp_path / "a.safetensors")
    (note,) = read_content(tmp_path / "a.safetensors", Reading()).notes
    assert note.startswith("left out: format odd of odd: recognises()")


def test_a_format_that_cannot_be_loaded_is_left_out_with_a_note(distribution, tmp_path):
    distribution("odd", registering("format", "odd", "odd:Nothing"))
    harness.save_distilled(toy_set(toy_problem()), tmp_path / "a.safetensors")
    (note,) = read_content(tmp_path / "a.safetensors", Reading()).notes
    assert note.startswith("left out: format 'odd' of odd cannot be loaded")
    with pytest.raises(UsageError, match=r"no format has the suffix '.odd'.*; left out: format 'odd' of odd"):
        writer_for(tmp_path / "a.odd", None)


@pytest.mark.parametrize(
    ("methods", "fault", "says"),
    [
        ({"read": "return 5"}, PluginError, "returned int, but promises a Content"),
        ({"read": "return Content('a', [1], None)"}, PluginError, "images returned list, but promises a Tensor"),
        ({"read": "return Content(5, torch.zeros(1), None)"}, PluginError, "where returned int"),
        ({"read": "return Content('a', torch.zeros(3, 1, 2, 2).to_sparse(), None)"}, PluginError, "read it on the CPU"),
        ({"read": "return Content('a', torch.zeros(1), None, classes=(1,))"}, PluginError, "a class or note"),
        ({"read": "1 / 0"}, PluginError, r"format odd of odd: read\(\) raised ZeroDivisionError"),
        ({"read": "return Content('a', torch.zeros(3), None)"}, DataError, "images must be"),
    ],
)
def test_what_a_format_reads_is_checked(distribution, tmp_path, methods, fault, says):
    changed(distribution, **methods)
    (tmp_path / "a.bin").write_text("text")
    with pytest.raises(fault, match=says):
        harness.load_distilled(tmp_path / "a.bin", preprocessing=toy_problem().preprocessing, classes=("a",))


@pytest.mark.parametrize(
    ("methods", "fault", "says"),
    [
        ({"write": "return []"}, PluginError, "wrote nothing at the path"),
        ({"write": "return 'text'"}, PluginError, "promises a list"),
        ({"refusal": "return 'not this'"}, DataError, "^not this$"),
        ({"refusal": "return 5"}, PluginError, "returned int, but promises a str"),
        ({"write": "raise OSError(28, 'full')"}, OSError, "full"),
    ],
)
def test_what_a_format_says_when_it_writes_is_checked(distribution, tmp_path, methods, fault, says):
    changed(distribution, **methods)
    with pytest.raises(fault, match=says):
        harness.save_distilled(toy_set(toy_problem()), tmp_path / "a.txt", "odd")


def test_a_store_is_read_whatever_formats_there_are(distribution, tmp_path):
    changed(distribution, recognises="return True")
    made_here = toy_set(toy_problem())
    OWN_FORMAT.write(made_here, tmp_path / "set.safetensors")
    with pytest.raises(UsageError, match="several formats"):
        harness.load_distilled(tmp_path / "set.safetensors")
    assert torch.equal(load_stored(tmp_path / "set.safetensors").images, made_here.images)


def test_options_of_a_format_are_no_run_wide_options(tmp_path):
    with pytest.raises(UsageError, match="there is no component 'npz'"):
        harness.run(method="random", set=["npz.pixels=true"], store=tmp_path / "store")


def test_formats_are_listed_and_shown(text):
    def ddbench(*words):
        return CliRunner().invoke(cli, words, prog_name="ddbench")

    rows = json.loads(ddbench("formats", "--json").stdout)
    assert {row["name"]: row["provider"] for row in rows}["text"] == "acme"
    assert "It is read and written, by the suffix .npz or .txt." in ddbench("formats", "show", "text").stdout
    assert "a summary" in ddbench("eval", "--help").stdout


def test_every_format_of_ours_has_the_class_that_it_names():
    kinds = {entry.name: entry.load() for entry in plugins().registry.of_kind("format")}
    assert {name for name, cls in kinds.items() if cls.is_written()} == {"safetensors", "vico", "npz", "images"}
