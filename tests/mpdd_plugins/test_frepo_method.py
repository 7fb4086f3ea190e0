"""FRePo: golden values of its code, NumPy and finite differences, its network, its pool, labels and resumption."""

import numpy as np
import pytest
import torch
from golden_inputs import META_GOLDEN, assert_golden, formula
from torch import nn
from toys import TINY_CONVNET, component, toy_problem, toy_trajectory

from harness import Network, Recipe, Streams, UsageError, ridge_predictions
from mpdd_plugins.methods.frepo import cosine, label_margin

FREPO = META_GOLDEN["frepo"]
FEW = "networks=2,max_updates=3,batch_real=20"


class Projected(Network):
    """The features of the golden values: relu(x W)."""

    def __init__(self):
        super().__init__()
        self.weight = formula(1200, (12, 5), -0.6, 0.6)

    def features(self, images):
        return torch.relu(images.flatten(1) @ self.weight)


def frepo(more="", **task):
    return toy_trajectory(f"frepo[{FEW}{more}]", f"single[main={TINY_CONVNET}]", **task)


@pytest.fixture(params=[False, True])
def golden(request):
    """The method with the golden inputs, its network, and what its code gives."""
    flip = request.param
    method = frepo(f",flip={str(flip).lower()}", problem=toy_problem(shape=(1, 3, 4))).method
    values = {"images": formula(1202, (4, 1, 3, 4)), "labels": formula(1203, (4, 3), -0.5, 0.8)}
    method.tensors = {name: tensor.requires_grad_() for name, tensor in values.items()}
    return method, Projected(), FREPO[f"objective, flip {flip}"]


def loss_of(method, network):
    real, labels = formula(1201, (6, 1, 3, 4)), torch.eye(3).double()[torch.arange(6) % 3] - 1 / 3
    return method.loss(network, network.features(real), labels)


def test_loss_and_gradients_are_frepos(golden):
    method, network, expected = golden
    loss, error = loss_of(method, network)
    of_images, of_labels = torch.autograd.grad(loss, list(method.tensors.values()))
    loss, error = loss.detach(), error.detach()
    assert float(error) == pytest.approx(expected["kernel loss"], rel=1e-7)
    assert float(loss) == pytest.approx(expected["loss"], rel=1e-7)
    assert float(loss - error) == pytest.approx(expected["label margin term"])
    assert_golden(of_images.permute(0, 2, 3, 1), expected["grad of images"], 1e-5)
    assert_golden(of_labels, expected["grad of labels"], 1e-5)


def test_the_loss_is_that_of_numpy_and_its_gradient_that_of_finite_differences(golden):
    method, network, _ = golden
    loss, _ = loss_of(method, network)
    gradients = torch.autograd.grad(loss, list(method.tensors.values()))
    start = {name: tensor.detach().clone() for name, tensor in method.tensors.items()}

    def by_hand(values):
        weight, images, labels = network.weight.numpy(), values["images"].numpy(), values["labels"].numpy()
        first, second = np.sort(labels, 1)[:, -1], np.sort(labels, 1)[:, -2]
        margin = np.minimum(first - second, 1 / 3).mean()
        if method.flip:
            images, labels = np.concatenate([images, images[..., ::-1]]), np.concatenate([labels, labels])
        own = np.maximum(images.reshape(len(images), -1) @ weight, 0)
        real = np.maximum(formula(1201, (6, 12)).numpy() @ weight, 0)
        kernel = own @ own.T
        kernel = kernel + 1e-6 * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
        predicted = real @ own.T @ np.linalg.solve(kernel, labels)
        targets = np.eye(3)[np.arange(6) % 3] - 1 / 3
        return 0.5 * ((predicted - targets) ** 2).sum(1).mean() - margin

    assert float(loss.detach()) == pytest.approx(by_hand(start), rel=1e-7)
    for (name, gradient), place in zip(zip(start, gradients, strict=True), [(2, 0, 1, 2), (1, 2)], strict=True):
        ends = []
        for sign in (1, -1):
            moved = {key: value.clone() for key, value in start.items()}
            moved[name][place] += sign * 1e-5
            ends.append(by_hand(moved))
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_the_prediction_is_the_published_one():
    entry = FREPO["kernel regression prediction (torch)"]
    real, own = formula(990, (6, 5)), formula(991, (4, 5))
    predicted = ridge_predictions(real @ own.T, own @ own.T, formula(992, (4, 3), -0.5, 0.5), 1e-6)
    assert_golden(predicted, entry["pred"], 1e-7)


def test_three_steps_of_lamb_are_the_published_ones():
    x, y = formula(1210, (3, 4), -1, 1).requires_grad_(), formula(1211, (3, 2), -0.5, 0.5).requires_grad_()
    optimizer, golden = (
        Recipe(optimizer="lamb", lr=3e-4, weight_decay=0.0).new_optimizer([x, y]),
        FREPO["three LAMB steps"],
    )
    for step in range(3):
        (group,) = optimizer.param_groups
        group["lr"] = 3e-4 * cosine(step, 10)
        assert group["lr"] == pytest.approx(golden["learning rates"][step], rel=1e-9)
        x.grad, y.grad = formula(1220 + step, (3, 4), -1, 1), formula(1230 + step, (3, 2), -1, 1)
        optimizer.step()
    assert_golden(x, golden["x"], 1e-8)
    assert_golden(y, golden["y"], 1e-8)


def test_margins_are_rewarded_up_to_a_cap():
    labels = torch.tensor([[0.9, -0.1, -0.1], [0.3, 0.1, 0.2]], requires_grad=True)
    margin = label_margin(labels, 1 / 3)
    (gradient,) = torch.autograd.grad(margin, labels)
    assert float(margin.detach()) == pytest.approx((1 / 3 + 0.1) / 2)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0, 0], [0.5, 0, -0.5]]))


def test_every_step_moves_images_and_labels_by_the_rate_times_their_norm():
    trajectory = frepo(",lr_img=0.01")
    before = {name: tensor.detach().clone() for name, tensor in trajectory.method.tensors.items()}
    trajectory.advance(1)
    for name, tensor in trajectory.method.tensors.items():
        moved = tensor.detach() - before[name]
        assert float(moved.norm() / before[name].norm()) == pytest.approx(0.01, rel=1e-4)


def test_a_network_is_replaced_after_its_last_step():
    """Two networks of at most three steps, staggered: every draw of the pool is one of theirs."""
    trajectory = frepo()
    trajectory.advance(12)
    draws = [name for names in trajectory.history.draws for name in ([names] if isinstance(names, str) else names)]
    assert len(draws) > 2 + 1


@pytest.mark.parametrize(
    "pool", [f"single[main={TINY_CONVNET}]", "total-random[of=mlp[width=8]+convnet[width=4,norm=batch,depth=1]]"]
)
def test_it_goes_on_bit_for_bit(pool):
    def started():
        return toy_trajectory(f"frepo[{FEW}]", pool, ipc=2)

    whole, first, second = started(), started(), started()
    wanted = whole.advance(7)
    first.advance(4)
    second.restore(*first.state())
    reached = second.advance(7)
    assert torch.equal(reached.images, wanted.images)
    assert torch.equal(reached.labels, wanted.labels)


def test_labels_are_learned_or_class_indices():
    learned, fixed = frepo().advance(2), frepo(",learn_labels=false").advance(2)
    assert learned.label_kind == "regression"
    assert not torch.equal(learned.labels, torch.eye(3) - 1 / 3)
    assert fixed.label_kind == "hard"
    assert fixed.labels.tolist() == [0, 1, 2]


def test_sets_that_may_be_mirrored_are_doubled():
    assert not frepo().method.flip, "the toy problem says nothing of flips"
    mirrored = toy_problem(augmentations={"dsa": "color+flip"})
    assert frepo(problem=mirrored).method.flip
    assert not frepo(",flip=false", problem=mirrored).method.flip


# --- its network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 1])
def test_the_network_is_frepos(channels):
    golden = FREPO[f"network with batch norm, {channels} channels"]
    network = component("architecture", "frepo-net[width=4]").network((channels, 8, 8), 3).double()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    images = formula(1250, (4, 8, 8, channels), -2, 2).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        for depth, layer in enumerate(convolutions):
            out, fan_in, *_ = layer.weight.shape
            bound = (3 / (9 * fan_in)) ** 0.5
            kernel = formula(1260 + 10 * depth, (3, 3, fan_in, out), -bound, bound)
            layer.weight.copy_(kernel.permute(3, 2, 0, 1))
            layer.bias.copy_(formula(1261 + 10 * depth, (out,), -0.1, 0.1))
        for depth, norm in enumerate(norms):
            size = norm.weight.shape
            norm.weight.copy_(formula(1310 + 10 * depth, size, 0.8, 1.2))
            norm.bias.copy_(formula(1311 + 10 * depth, size, -0.1, 0.1))
            norm.running_mean.copy_(formula(1312 + 10 * depth, size, -0.2, 0.5))
            norm.running_var.copy_(formula(1313 + 10 * depth, size, 0.5, 1.5))
        bound = (3 / 16) ** 0.5
        network.classifier.weight.copy_(formula(1300, (16, 3), -bound, bound).T)
        network.classifier.bias.copy_(formula(1301, (3,), -0.1, 0.1))
        before = [norm.running_var.clone() for norm in norms]
        network.eval()
        assert_golden(network.features(images), golden["features by running statistics"])
        assert_golden(network(images), golden["logits by running statistics"])
        assert_golden(network.train()(images), golden["logits by the batch's"])
    sizes = [4 * side**2 for side in ((4, 2) if channels == 3 else (6, 3))]
    for depth, (norm, count) in enumerate(zip(norms, sizes, strict=True)):
        assert_golden(norm.running_mean, golden["running mean after it"][f"BatchNorm_{depth}"])
        # Flax's new variance is the biased one, torch's the unbiased one.
        moved = norm.running_var - 0.1 * before[depth]
        assert_golden(
            0.1 * before[depth] + moved * (count - 1) / count, golden["running var after it"][f"BatchNorm_{depth}"]
        )


def test_its_weights_are_lecuns():
    network = component("architecture", "frepo-net").build((3, 32, 32), 10, Streams(0).generator("weights"))
    assert network.features(torch.zeros(2, 3, 32, 32)).shape == (2, 8192)
    layer = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    deviation = float(layer.weight.detach().std()) * (9 * 256) ** 0.5
    assert deviation == pytest.approx(1, rel=0.01)
    assert float(layer.weight.detach().abs().max()) <= 2.28 / (9 * 256) ** 0.5
    assert not layer.bias.any()


def test_a_dead_network_says_so():
    method, network = frepo(problem=toy_problem(shape=(1, 3, 4))).method, Projected()
    network.weight = -torch.ones(12, 5)
    method.tensors = {"images": torch.ones(3, 1, 3, 4, requires_grad=True), "labels": torch.eye(3, requires_grad=True)}
    with pytest.raises(Exception, match="features may all be zero"):
        method.loss(network, torch.ones(6, 5), torch.zeros(6, 3))


def test_an_option_out_of_range_is_refused():
    with pytest.raises(UsageError, match="networks=0"):
        toy_trajectory("frepo[networks=0]")
