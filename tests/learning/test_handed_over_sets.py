"""A set that a method hands over is checked at once, by what a reader of its file checks."""

import dataclasses

import pytest
import torch
from studies import ddbench, records, write_arrays
from toy_plugins import Still
from toys import toy_problem, toy_trajectory

import harness
from harness import DistilledSet, Normalize, Options, Parametrisation, PluginError, open_encoding
from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry
from harness.types.parametrisation import Encoding


def changed(**changes):
    """A function that changes a sound set, past all checks, as a tensor that is written to in place does."""

    def change(distilled):
        for name, value in changes.items():
            object.__setattr__(distilled, name, value(distilled) if callable(value) else value)
        return distilled

    return change


def packing(distilled):
    return open_encoding("multi-formation[factor=2]", distilled.images.shape[1:])


class Stretching(Parametrisation):
    """Decodes to images of another shape."""

    def initial(self, start):
        return {"images": start.pixels(start.ipc)}

    def decode(self, tensors, labels, shape):
        return tensors["images"][..., 1:], labels


def stretching(distilled):
    return Encoding(Stretching(Options()), "stretching", "toys", distilled.images.shape[1:])


class Plain(Stretching):
    """Decodes nothing, and checks nothing."""

    def decode(self, tensors, labels, shape):
        return tensors["images"], labels


WRONG = {
    "packed pixels beyond 1": (changed(encoding=packing, images=lambda s: s.images * 0 + 1.5), "pixels in"),
    "packed pixels below 0": (changed(encoding=packing, images=lambda s: s.images * 0 - 0.5), "pixels in"),
    "NaN": (changed(images=lambda s: s.images * torch.nan), "NaN"),
    "whole numbers": (changed(images=lambda s: s.images.long()), "images must be floats"),
    "other images": (changed(images=lambda s: s.images[..., :8]), "images are"),
    "logits": (changed(labels=lambda s: torch.randn(len(s.images), 3)), "not class weights"),
    "labels beyond": (changed(labels=lambda s: s.labels + 1), "labels must lie"),
    "fewer labels": (changed(labels=lambda s: s.labels[:-1]), "labels"),
    "no step size": (changed(step_size=0.0), "not a learning rate"),
    "a step size that is no number": (changed(step_size=float("nan")), "not a learning rate"),
    "a step size that is a word": (changed(step_size="fast"), "not a learning rate"),
    "other classes": (changed(classes=("x", "y", "z")), "its classes are not those"),
    "fewer classes": (changed(classes=("x", "y")), "labels must lie"),
    "a name twice": (changed(classes=("a", "a", "b")), "same name"),
    "other preprocessing": (
        changed(preprocessing=Normalize("own", torch.full((1,), 0.1), torch.full((1,), 0.1))),
        "its preprocessing 'own' is not that of",
    ),
    "decoded to another shape": (changed(encoding=stretching), "'stretching' decodes to images"),
    "decoded beyond 1": (
        changed(encoding=lambda s: dataclasses.replace(packing(s), parametrisation=Plain(Options()))),
        r"pixels in \[0, 1\], but go from",
    ),
    "provenance that is no JSON": (changed(provenance={"x": {1, 2}}), "cannot be written as JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_could_not_be_read_again_is_refused_when_it_is_handed_over(name):
    change, says = WRONG[name]
    trajectory = toy_trajectory()
    distilled = trajectory.method.distilled
    trajectory.method.distilled = lambda: change(distilled())
    with pytest.raises(PluginError, match=says) as caught:
        trajectory.advance(0)
    assert str(caught.value).startswith("method dc[batch_real=7] of ddbench: distilled() gives a set")


def test_sound_sets_are_taken():
    trajectory = toy_trajectory()
    assert trajectory.advance(0).misfit(toy_problem()) is None


class Packed(Still):
    """Hands over packed images, the second time with one pixel beyond 1."""

    def step(self, iteration, networks):
        self.images = self.images + 1
        return {}

    def distilled(self):
        whole = self.task.distilled(self.images * 0 + 0.5, self.labels)
        packed = dataclasses.replace(whole, encoding=packing(whole))
        if self.images.max() > 1:
            packed.images[0, 0, 0, 0] = 1.5
        return packed


@pytest.fixture
def packed():
    entry = Entry("method", "packed", f"{__name__}:Packed", "a toy", "toys", "1")
    plugins().registry.entries.append(entry)
    yield
    plugins().registry.entries.remove(entry)


def test_such_a_set_is_a_failed_distillation_and_its_students_are_not_tried(packed, tmp_path):
    data = write_arrays(tmp_path / "a.npz")
    words = ("--dataset", f"arrays[path={data}]", "--evaluator", "plain[epochs=2]", "--architecture", "mlp[width=8]")
    ran = ddbench(
        *("run", "--method", "packed", *words, "--students", 2, "--store", tmp_path / "store", "--iterations", "1,2")
    )
    assert ran.exit_code == 1
    reason = "distilled() gives a set that cannot be used: its images should be pixels in [0, 1], but go from"
    failed = [line for line in ran.stderr.splitlines() if "FAILED" in line]
    assert len(failed) == 1
    assert reason in " ".join(ran.stderr.split())
    kinds = [record["kind"] for record in records(tmp_path / "store").values()]
    assert sorted(kinds) == ["distilled", "student", "student"]


def test_nothing_is_committed_that_cannot_be_read_back(toys_registered, tmp_path, monkeypatch):
    from harness.types.formats.own import Safetensors

    def truncated(self, distilled, path):
        write(self, distilled, path)
        path.write_bytes(path.read_bytes()[:-8])

    write = Safetensors.write
    monkeypatch.setattr(Safetensors, "write", truncated)
    data = write_arrays(tmp_path / "a.npz")
    result = harness.run(
        method="still", dataset=f"arrays[path={data}]", evaluator="plain[epochs=2]", architecture="mlp[width=8]",
        students=1, iterations=1, store=tmp_path / "store",
    )  # fmt: skip
    assert any("is not a distilled set" in reason for reason in result.failed.values())
    assert not records(tmp_path / "store")


@pytest.fixture
def toys_registered():
    import toy_plugins

    with toy_plugins.registered():
        yield


def test_a_set_that_was_changed_since_is_seen():
    distilled = DistilledSet(torch.zeros(1, 1, 2, 2), torch.zeros(1).long(), ("a",), Normalize("n", *torch.ones(2, 1)))
    distilled.check()
    distilled.images[0] = torch.nan
    with pytest.raises(harness.DataError, match="NaN"):
        distilled.check()
