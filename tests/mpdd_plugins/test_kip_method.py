"""KIP: its steps, its options, its labels, and the evaluator that reports the kernel's accuracy."""

import pytest
import torch
from toys import TINY_CONVNET, component, toy_problem, toy_trajectory

from harness import BlockedKernel, Streams, UsageError, centred_one_hot, kernel_named, kernel_regression


def kip(more="", **task):
    return toy_trajectory(f"kip[batch_real=24{more}]", **task)


@pytest.mark.parametrize("kernel", ["fc", "fc[depth=2,act=erf,of=nngp]", "conv[depth=2,head=gap]"])
def test_a_step_is_adams_on_the_regressions_gradient(kernel):
    problem = toy_problem(shape=(1, 8, 8))
    trajectory = kip(f",kernel={kernel},learn_labels=true", problem=problem)
    method = trajectory.method
    before = {name: tensor.detach().clone() for name, tensor in method.tensors.items()}
    real, labels = method._target_batch(0)
    assert labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    answer = kernel_regression(
        BlockedKernel(kernel_named(kernel), 2**30),
        before["images"],
        before["labels"],
        real,
        centred_one_hot(labels, 3),
        1e-6,
    )
    distilled = trajectory.advance(1)
    assert trajectory.history.scalars["loss"] == [pytest.approx(float(answer.loss), rel=1e-6)]
    # The first step of Adam is the rate times the gradient's sign.
    for name, gradient in (("images", answer.images), ("labels", answer.labels)):
        clear = gradient.abs() > 1e-6
        moved = (method.tensors[name].detach() - before[name])[clear]
        torch.testing.assert_close(moved, (-0.04 * gradient.sign()[clear]).float(), rtol=1e-2, atol=1e-6)
    assert distilled.label_kind == "regression"


def test_the_loss_falls():
    trajectory = kip()
    trajectory.advance(30)
    losses = trajectory.history.scalars["loss"]
    assert losses[-1] < 0.7 * losses[0]
    assert trajectory.method.distilled().label_kind == "hard"


def test_memory_changes_no_number():
    little, much = kip(",memory=0.001").advance(2), kip().advance(2)
    torch.testing.assert_close(little.images, much.images, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("more", ["", ",learn_labels=true"])
def test_it_goes_on_bit_for_bit(more):
    whole, first, second = (kip(more, ipc=2) for _ in range(3))
    wanted = whole.advance(4)
    first.advance(2)
    second.restore(*first.state())
    reached = second.advance(4)
    assert torch.equal(reached.images, wanted.images)
    assert torch.equal(reached.labels, wanted.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [("kernel=fc[act=tanh]", "act=tanh"), ("kernel=cnn", "there is no kernel 'cnn'"), ("memory=0", "memory=0")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        toy_trajectory(f"kip[{options}]")


def test_one_kernel_has_one_key():
    assert kip(",kernel=fc[depth=1,of=ntk]").method.options == kip(",kernel=fc").method.options


def test_departures_from_the_published_images_are_noted():
    assert kip().method.notes() == ()
    (line,) = kip(problem=toy_problem(like="cifar10")).method.notes()
    assert line == "kip was published for cifar10 on whitened images: normalize=kip-zca in --dataset does so"
    first, second = toy_trajectory("frepo[lr_img=0.1]", problem=toy_problem(like="cifar10")).method.notes()
    assert first == "frepo was published with lr_img 0.0003, and not 0.1"
    assert second.endswith("normalize=frepo-zca in --dataset does so")


# --- the evaluator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["", ",learn_labels=true"])
def test_the_kernels_accuracy_is_a_metric_beside_that_of_students(more):
    trajectory = kip(more)
    distilled, problem = trajectory.advance(20), trajectory.problem
    architecture = component("architecture", TINY_CONVNET)
    records, plain = (
        list(
            component("evaluator", f"{name}[epochs=2]").evaluate(
                distilled, problem, architecture, [0, 1], {}, Streams(0)
            )
        )
        for name in ("kernel", "plain")
    )
    assert [record.accuracy for record in records] == [record.accuracy for record in plain]
    values = distilled.labels if more else centred_one_hot(distilled.labels, 3)
    kernel = BlockedKernel(kernel_named("fc"), 2**30)
    inputs = problem.preprocessing.to_inputs(problem.score.images)
    answer = kernel_regression(kernel, distilled.images, values, inputs, torch.zeros(len(inputs), 3), 1e-6)
    accuracy = float((answer.predictions.argmax(1) == problem.score.labels).double().mean())
    assert [dict(record.metrics) for record in records] == [{"kernel_accuracy": accuracy}] * 2
    assert accuracy > 0.6, "the toy problem is easy"
