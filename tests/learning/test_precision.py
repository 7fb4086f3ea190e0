"""TF32 only where it was asked for, although torch takes it for convolutions by itself."""

import pytest
import torch
from studies import small_run
from toys import toy_trajectory

from harness.learning import students
from harness.learning.precision import float32_products


def rounds():
    """Whether matrix products, and whether convolutions are in TF32 on a GPU."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_products_are_rounded_under_tf32_alone_and_as_before_afterwards():
    before = rounds()
    for precision, rounded in (("fp32", False), ("tf32", True), ("bf16", False)):
        with float32_products(precision):
            assert rounds() == (rounded, rounded)
        with pytest.raises(ValueError, match="inside"), float32_products(precision):
            raise ValueError("inside")
        assert rounds() == before


@pytest.mark.parametrize(("precision", "rounded"), [("fp32", False), ("tf32", True)])
def test_a_trajectory_steps_in_its_own_precision(precision, rounded, monkeypatch):
    before, seen = rounds(), []
    trajectory = toy_trajectory(precision=precision)
    step = trajectory.method.step
    monkeypatch.setattr(trajectory.method, "step", lambda *given: seen.append(rounds()) or step(*given))
    trajectory.advance(2)
    assert seen == [(rounded, rounded)] * 2
    assert rounds() == before


def test_students_of_a_run_are_trained_in_float32(data, tmp_path, monkeypatch):
    before, seen = rounds(), []
    score = students.score
    monkeypatch.setattr(students, "score", lambda *given: seen.append(rounds()) or score(*given))
    small_run(data, tmp_path / "store")
    assert seen == [(False, False)] * 2
    assert rounds() == before
