"""DD: golden values of its code, finite differences, its steps in order, its rates, and resumption."""

import math

import pytest
import torch
from golden_inputs import META_GOLDEN, assert_golden, formula
from torch.nn import functional
from toys import TINY_CONVNET, component, toy_problem, toy_trajectory

from harness import Streams, UsageError

DD = META_GOLDEN["dd"]["2 steps x 1 epochs of LeNet"]
SMOOTH = "convnet[width=3,depth=1,act=swish]"


def dd(more="", pool=f"single[main={TINY_CONVNET}]", **task):
    return toy_trajectory(f"dd[batch_real=20{more}]", pool, **task)


def test_loss_and_gradients_are_dds():
    method = dd(",epochs=1", problem=toy_problem(classes=10, shape=(1, 28, 28)), ipc=2).method
    network = component("architecture", "lenet").network((1, 28, 28), 10).double()
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            bound = 0.1 if parameter.ndim == 1 else math.sqrt(3 / parameter[0].numel())
            parameter.copy_(formula(800 + k, parameter.shape, -bound, bound))
    # Ours lie class by class, the published ones step by step.
    owned = [formula(820 + step, (10, 1, 28, 28), -1, 1) for step in range(2)]
    raw = torch.tensor(DD["raw learning rates"], dtype=torch.float64)
    method.tensors = {"images": torch.stack(owned, 1).flatten(0, 1), "raw_step_sizes": raw}
    assert method.step_sizes.tolist() == pytest.approx(DD["inner learning rates"])
    loss, of_images, of_sizes = method.play(network, formula(830, (6, 1, 28, 28), -1, 1), torch.arange(6))
    assert float(loss) == pytest.approx(DD["final loss"], rel=1e-6)
    assert (of_sizes * raw.sigmoid()).tolist() == pytest.approx(DD["grad of raw learning rates"], rel=1e-6)
    for step, golden in enumerate(DD["grad of step images"]):
        assert_golden(of_images.view(10, 2, 1, 28, 28)[:, step], golden, 1e-6)
    assert float(sum(weight.detach().sum() for weight in network.parameters())) == pytest.approx(
        DD["sum of final weights"], rel=1e-6
    )


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (2, 1), (1, 3), (2, 2)])
def test_gradients_are_those_of_finite_differences(steps, epochs):
    method = dd(f",steps={steps},epochs={epochs},step_size=0.3", ipc=2).method
    start = {name: tensor.detach().double() for name, tensor in method.tensors.items()}
    real, labels, size = formula(1, (6, 1, 16, 16), -1, 1), torch.arange(6) % 3, 1e-5

    def played(**moved):
        method.tensors = {**start, **moved}
        network = component("architecture", SMOOTH).build((1, 16, 16), 3, Streams(0).generator("weights"))
        return method.play(network.double(), real, labels)

    _, of_images, of_sizes = played()
    of_raw = of_sizes * start["raw_step_sizes"].sigmoid()
    places = [
        ("images", of_images, (0, 0, 3, 4)),
        ("images", of_images, (5, 0, 9, 9)),
        ("raw_step_sizes", of_raw, (-1,)),
    ]
    for name, gradient, place in places:
        bump = torch.zeros_like(start[name])
        bump[place] = size
        up, down = (float(played(**{name: start[name] + sign * bump})[0]) for sign in (1, -1))
        assert float(gradient[place]) == pytest.approx((up - down) / (2 * size), rel=1e-5, abs=1e-10)


def test_the_set_carries_its_steps_in_order():
    distilled = dd(",steps=2,epochs=3,step_size=0.2", ipc=4).advance(3)
    steps = distilled.schedule.steps
    assert [step.images for step in steps[:2]] == [(0, 1, 4, 5, 8, 9), (2, 3, 6, 7, 10, 11)]
    assert [step.images for step in steps] == [step.images for step in steps[:2]] * 3
    assert len({step.step_size for step in steps}) == 6, "each step has a rate of its own"
    assert distilled.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_protocol_plays_the_methods_own_steps():
    """A student's loss on real images is the loss that the method has computed for the same initial weights."""
    trajectory = dd(",step_size=0.2", ipc=2)
    distilled, problem = trajectory.advance(2), trajectory.problem
    real, labels = problem.preprocessing.to_inputs(problem.score.images), problem.score.labels
    evaluator, architecture = component("evaluator", "plain[protocol=dd]"), component("architecture", TINY_CONVNET)
    (record,) = evaluator.evaluate(distilled, problem, architecture, [0], {}, Streams(0))
    network = architecture.build(problem.shape, 3, Streams(0).generator("student", 0, 0))
    loss, *_ = trajectory.method.play(network, real, labels)
    with torch.no_grad():
        assert float(functional.cross_entropy(network(real), labels)) == pytest.approx(float(loss), rel=1e-6)
        assert record.accuracy == float((network(real).argmax(1) == labels).double().mean())


def test_rates_are_softplus_and_fall():
    trajectory = dd(",lr_img=0.5,decay=0.1,decay_epochs=1")
    method, rates = trajectory.method, []
    assert method.step_sizes.tolist() == pytest.approx([0.02] * 3)
    for iteration in range(4):
        trajectory.advance(iteration + 1)
        rates.append(method.optimizer.param_groups[0]["lr"])
    # 36 real images are two updates of 20.
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05])
    assert bool((method.step_sizes > 0).all())


@pytest.mark.parametrize("more", ["", ",networks=fixed-init", ",draws=2"])
@pytest.mark.parametrize("architecture", [TINY_CONVNET, "convnet[width=4,depth=1,norm=batch]"])
def test_it_goes_on_bit_for_bit(more, architecture):
    whole, first, second = (dd(f"{more},epochs=2", f"single[main={architecture}]", ipc=2) for _ in range(3))
    wanted = whole.advance(4)
    first.advance(2)
    second.restore(*first.state())
    reached = second.advance(4)
    assert torch.equal(reached.images, wanted.images)
    assert reached.schedule == wanted.schedule


def test_a_fixed_network_has_the_same_weights_at_every_update(monkeypatch):
    trajectory, seen = dd(",networks=fixed-init"), []
    play = trajectory.method.play

    def watched(network, *rest):
        seen.append([weight.detach().clone() for weight in network.parameters()])
        return play(network, *rest)

    monkeypatch.setattr(trajectory.method, "play", watched)
    trajectory.advance(3)
    assert all(torch.equal(a, b) for later in seen[1:] for a, b in zip(seen[0], later, strict=True))


def test_steps_that_do_not_divide_ipc_are_refused():
    with pytest.raises(UsageError, match=r"steps=2 cannot own equally many of ipc 3 .* choose steps that divide ipc"):
        dd(",steps=2", ipc=3)
