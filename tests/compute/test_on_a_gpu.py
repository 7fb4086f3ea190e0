"""What a GPU repeats from recordings is what it computes without; on a machine that has one."""

import dataclasses

import pytest
import torch
from toys import component, toy_problem, toy_set, toy_trajectory

from harness import Lesson, Recipe, Streams, train_network, train_students
from harness.compute import cuda_graphs as recording
from harness.compute.compiling import set_compilation

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU here")

POOL = "main-similar[main=convnet[width=8,depth=2]:0.5,width=8,depth=2]"


@pytest.fixture(autouse=True)
def recordings(monkeypatch):
    """Collect the recordings of a test, which has to have at least one, and none that failed."""
    recordings, plain = [], recording.Recording

    def record(*args):
        recordings.append(args)
        return plain(*args)

    monkeypatch.setattr(recording, "Recording", record)
    yield
    assert recordings
    assert not recording._RecordingFailure.happened


@pytest.fixture
def problem():
    return dataclasses.replace(toy_problem(), device=DEVICE)


def by_policy(work):
    """What ``work`` gives with recordings and without."""
    results = []
    for policy in ("auto", "never"):
        set_compilation(policy)
        try:
            results.append(work())
        finally:
            set_compilation("never")
    return results


@pytest.mark.parametrize("ipc", [1, 3])
@pytest.mark.parametrize("method", ["dc[batch_real=7,outer=3,inner=4]", "dsa[batch_real=7,outer=2,inner=2]"])
def test_a_distillation(problem, method, ipc):
    def distil():
        trajectory = toy_trajectory(method, POOL, problem=problem, ipc=ipc)
        trajectory.advance(6)
        return trajectory.method.images.detach().cpu(), trajectory.history.scalars["loss"]

    (recorded, losses), (plain, others) = by_policy(distil)
    assert (recorded - plain).norm() <= 1e-2 * plain.norm()
    assert losses == pytest.approx(others, rel=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["mlp[width=8]", "convnet[width=8,depth=2]", "convnet[width=8,depth=2,norm=batch]"])
def test_students(problem, name, optimizer):
    lesson = Lesson(toy_set(problem, 3), Recipe(epochs=12, lr=0.02, batch=4, optimizer=optimizer), Streams(0))
    architecture = component("architecture", name)

    def losses():
        records = list(train_students(lesson, problem, architecture, range(5)))
        return [record.losses[-1] for record in records], train_network(lesson, problem, architecture, 2)[1][-1]

    (recorded, recorded_loss), (plain, other) = by_policy(losses)
    assert recorded == pytest.approx(plain, rel=1e-2)
    assert recorded_loss == pytest.approx(other, rel=1e-2)
    assert recorded_loss == pytest.approx(recorded[2], rel=1e-2)
