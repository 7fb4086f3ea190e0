"""IDC: golden values of its authors' code, published settings, its updates against torch's SGD, the real training."""

import contextlib

import pytest
import torch
from golden_inputs import GOLDEN, assert_golden, filled_convnet, formula
from torch.nn import functional
from toys import TINY_CONVNET, TINY_MLP, component, registry, resolve, toy_problem, toy_trajectory

from harness import DISTANCES, DataError, Pair, Streams, Task, UsageError, gradient_of, match_classes
from harness.learning.networks.pool_networks import PoolNetworks
from mpdd_plugins.augmentations.idc import siamese
from mpdd_plugins.methods import idc
from mpdd_plugins.methods.idc import IDC, distance_of
from mpdd_plugins.published_settings.idc import IDCOptions, published, setting_for

FEW = "inner=2,batch_real=6,n_data=16,batch_train=8"
SINGLE = f"single[main={TINY_CONVNET}]"


def method_of(name=f"idc[{FEW}]", *, problem=None, ipc=1):
    """Return a method before its first step."""
    return registry().resolve("method", name).make(Task(problem or toy_problem(), ipc, Streams(0), iterations=10))


# --- golden values ----------------------------------------------------------------------------------------------------

METRICS = {"mse": "mse", "l1": "l1", "l1_mean": "l1-mean", "cos": "layerwise"}
"""Names of the golden values' metrics, and ours."""


@pytest.fixture(scope="module")
def network():
    return filled_convnet(3, 16, 10)


@pytest.mark.parametrize("name", [name for name in GOLDEN["idc"] if name.startswith("match") and "bias" in name])
def test_matching_losses_and_their_gradients_are_those_of_idcs_code(name, network):
    golden = GOLDEN["idc"][name]
    metric, *switches = name.removeprefix("match ").split()
    bias, fc = (switch.endswith("True") for switch in switches)
    distance = distance_of(DISTANCES[METRICS[metric]], bias=bias, fc=fc)
    real, synthetic = formula(230, (6, 3, 16, 16), -2, 2), formula(231, (4, 3, 16, 16), -2, 2).requires_grad_()
    target = gradient_of(network, real, torch.full((6,), 3))
    loss = distance(gradient_of(network, synthetic, torch.full((4,), 3), differentiable=True), target)
    assert float(loss.detach()) == pytest.approx(golden["loss"], rel=1e-9)
    assert_golden(torch.autograd.grad(loss, synthetic)[0], golden["grad"])


def test_the_network_of_the_golden_values_is_theirs(network):
    assert_golden(network(formula(231, (4, 3, 16, 16), -2, 2)), GOLDEN["idc"]["net logits of syn"]["logits"])


def test_matching_of_features_is_that_of_idcs_code(network, monkeypatch):
    """Through the method itself: all of its classes hold the golden images, so its loss is the sum of theirs."""
    golden = GOLDEN["idc"]["match feat (last block, mse of mean features)"]
    method = method_of(
        f"idc[{FEW},as=pixels,metric=mse,match=features,augment=none]", problem=toy_problem(shape=(3, 16, 16)), ipc=4
    )
    monkeypatch.setattr(method, "real", lambda *words: formula(230, (6, 3, 16, 16), -2, 2))
    method.images = formula(231, (4, 3, 16, 16), -2, 2).repeat(3, 1, 1, 1).requires_grad_()
    loss = method._match_features(network, 0, 0)
    assert float(loss) == pytest.approx(3 * golden["loss"], rel=1e-9)
    assert_golden(method.images.grad[4:8], golden["grad"])


@pytest.mark.parametrize("case", GOLDEN["idc"]["pixel learning rates after scaling"])
def test_learning_rates_of_the_pixels_are_the_published_ones(case):
    name, ipc = case.split(" ipc")
    like = {"fashion": "fashion-mnist", "imagenet": None}.get(name, name)
    shape = {"cifar10": (3, 32, 32), "imagenet": (3, 224, 224)}.get(name, (1, 28, 28))
    problem = toy_problem(shape=shape, train=2, test=1, like=like)
    setting = setting_for(Task(problem, int(ipc), Streams(0), 1), IDCOptions())
    assert setting.lr_img == pytest.approx(GOLDEN["idc"]["pixel learning rates after scaling"][case], rel=1e-12)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_published_settings_by_data_set():
    def of(like, shape=(1, 28, 28), classes=3):
        return published(toy_problem(shape=shape, train=1, test=1, like=like, classes=classes))

    assert (of("cifar10").metric, of("cifar10").n_data) == ("mse", 2000)
    assert (of("svhn").metric, of("svhn").n_data) == ("mse", 500)
    assert (of("mnist").metric, of("mnist").n_data) == ("l1", 500)
    assert of(None) == of("svhn"), "nothing is published for it"
    large = of(None, (3, 128, 128))
    assert (large.metric, large.lr_img, large.early) == ("l1", 3e-3, 10)


@pytest.mark.parametrize(
    ("like", "as_", "operations"),
    [
        ("mnist", "multi-formation", ("color+crop", "color+crop")),
        ("mnist", "unit-pixels", ("color+crop+cutout", "color+crop+cutmix")),
        ("cifar10", "multi-formation", ("color+crop+cutout", "color+crop+cutmix")),
    ],
)
def test_mnist_has_its_own_augmentation_where_images_are_packed(like, as_, operations):
    method = method_of(f"idc[as={as_}]", problem=toy_problem(like=like))
    assert (method.strategy, method.net_strategy) == operations


@pytest.mark.parametrize(("side", "factor"), [(16, 2), (128, 3)])
def test_images_are_packed_by_their_size(side, factor):
    problem = toy_problem(shape=(1, side, side), train=9, test=1, classes=2)
    method = method_of("idc", problem=problem)
    assert method.per_class == factor**2
    assert method.settings()["as"] == ("multi-formation" if factor == 2 else "multi-formation[factor=3]")


def test_what_is_not_published_is_noted():
    assert method_of("idc", problem=toy_problem(like="cifar10", shape=(3, 32, 32))).notes() == [
        "idc: the network trains on all 36 real images between updates, not on 2000"
    ]
    (line, _) = method_of("idc[metric=l1]").notes()
    assert line == "idc has no published setting for small: lr_img, n_data as for svhn"
    assert method_of("idc[metric=l1,lr_img=1,n_data=3]").notes() == []


def test_cutmix_is_refused_where_images_are_matched():
    with pytest.raises(UsageError, match="cutmix changes labels"):
        method_of("idc[augment=color+cutmix]")


# --- which weights match ----------------------------------------------------------------------------------------------


def losses_through(name, main):
    return toy_trajectory(name, f"single[main={main}]")


def test_a_network_without_convolutions_has_its_linear_layers_matched():
    trajectory = losses_through(f"idc[{FEW}]", TINY_MLP)
    trajectory.advance(1)
    assert trajectory.history.scalars["loss"][0] > 0


def test_a_network_of_which_nothing_would_match_is_refused():
    with pytest.raises(UsageError, match=r"has none: use fc=auto"):
        losses_through(f"idc[{FEW},fc=false]", TINY_MLP).advance(1)


def test_switches_drop_exactly_the_vectors_and_the_linear_layers():
    seen = []
    pieces = [torch.ones(shape) for shape in [(2, 1, 3, 3), (2,), (4, 8), (4,)]]
    for bias, fc in [(False, False), (True, False), (False, True), (True, True)]:
        distance_of(lambda a, b: seen.append([piece.ndim for piece in a]), bias=bias, fc=fc)(pieces, pieces)
    assert seen == [[4], [4, 1, 1], [4, 2], [4, 1, 2, 1]]


# --- updates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_", ["multi-formation", "pixels"])
def test_updates_are_torchs_sgd_one_step_for_each_class(as_, monkeypatch):
    """The reference matches a class where its images are at its turn, and steps with no gradient for the others."""
    method = method_of(f"idc[{FEW},as={as_},lr_img=0.01,momentum_img=0.5,augment=none]", ipc=2)
    network = component("architecture", TINY_CONVNET).build((1, 16, 16), 3, torch.Generator().manual_seed(0))
    tensor = method._tensors["images"]
    mirror = tensor.detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([mirror], 0.01, momentum=0.5)
    for round_ in range(3):
        loss = method._update_in_turn(lambda round_=round_: method._match_gradients(network, 0, round_))
        total = 0.0
        for label in range(3):
            decoded = mirror if as_ == "pixels" else decoded_inputs(method, mirror)
            own = decoded[method.mine(label)]
            real = method.real(label, 6, "real", 0, round_)
            target = gradient_of(network, real, torch.full((len(real),), label))
            distance = method._distance(network)
            term = distance(gradient_of(network, own, torch.full((len(own),), label), differentiable=True), target)
            optimizer.zero_grad()
            term.backward(inputs=[mirror])
            optimizer.step()
            total += float(term.detach())
        assert float(loss) == pytest.approx(total, rel=1e-4)
        torch.testing.assert_close(tensor.detach(), mirror.detach(), rtol=1e-4, atol=1e-6)
        buffer = optimizer.state[mirror]["momentum_buffer"]
        torch.testing.assert_close(method.state()["momentum"], buffer, rtol=1e-3, atol=1e-4 * float(buffer.abs().max()))


def decoded_inputs(method, images):
    """Return what stored images decode to, as network inputs class by class."""
    encoded = method.encoded
    pixels, labels = encoded._encoding.decode(images, encoded._stored_labels)
    return method.task.problem.preprocessing.apply(pixels)[torch.argsort(labels, stable=True)]


def test_two_classes_with_constant_gradients_in_closed_form(monkeypatch):
    """With gradients a and b: class 0 moves by a and its momentum, class 1 at its turn; then both drift on."""
    method = method_of(f"idc[{FEW},as=pixels,lr_img=1,momentum_img=0.5]", problem=toy_problem(classes=2))
    start = method.images.detach().clone()
    a, b = 1.0, 2.0

    def match():
        method.images.grad = torch.cat([torch.full_like(start[:1], a), torch.full_like(start[1:], b)])
        return torch.zeros(())

    method._update_in_turn(match)
    moved = start - method.images.detach()
    torch.testing.assert_close(moved[0], torch.full_like(start[0], a + a / 2))
    torch.testing.assert_close(moved[1], torch.full_like(start[1], b))
    method._update_in_turn(match)
    # Class 0 had half of a left, takes (a / 4 + a) and drifts by half of it; class 1 drifts by b / 2, then b / 4 + b.
    moved = start - method.images.detach()
    torch.testing.assert_close(moved[0], torch.full_like(start[0], 1.5 * a + 1.25 * a + 0.625 * a))
    torch.testing.assert_close(moved[1], torch.full_like(start[1], b + b / 2 + 1.25 * b))


def test_a_joint_step_is_an_option():
    in_turn, joint = (toy_trajectory(f"idc[{FEW},update={update}]").advance(2).images for update in ("class", "joint"))
    assert not torch.equal(in_turn, joint)
    torch.testing.assert_close(in_turn, joint, atol=0.05, rtol=0)


def test_images_that_are_not_matched_get_no_gradient():
    method = method_of(f"idc[{FEW},batch_syn=3]", ipc=2)
    network = component("architecture", TINY_CONVNET).build((1, 16, 16), 3, torch.Generator().manual_seed(0))
    method._match_gradients(network, 0, 0)
    moved = method.images.grad.flatten(1).abs().sum(1).view(3, 8) > 0
    assert moved.sum(1).tolist() == [3, 3, 3]
    method._match_gradients(network, 0, 1)
    assert not torch.equal(moved, method.images.grad.flatten(1).abs().sum(1).view(3, 8) > 0), "drawn anew"


def test_real_images_themselves_match():
    network = filled_convnet(1, 16, 3)
    problem, images = toy_problem(), formula(1, (6, 1, 16, 16), -1, 1)

    def pair(label):
        own = images[2 * label : 2 * label + 2]
        transform = siamese("color+crop+cutout", problem.shape, torch.Generator().manual_seed(label))
        return Pair(label, transform(own), own, transform)

    distance = distance_of(DISTANCES["l1"], bias=False, fc=False)
    loss, _ = match_classes(network, problem, pair, distance, contextlib.nullcontext)
    assert float(loss) == pytest.approx(0, abs=1e-10)


# --- the real training ------------------------------------------------------------------------------------------------


def test_the_network_trains_on_real_images_as_torchs_sgd_would():
    """Between updates, with momentum that goes on from one round to the next; not after the last update."""
    name = "idc[inner=3,batch_real=6,n_data=16,batch_train=8,augment_net=none,lr_net=0.05]"
    trajectory = toy_trajectory(name)
    method, problem, streams = trajectory.method, trajectory.problem, Streams(0)
    networks = PoolNetworks(component("pool", SINGLE), resolve, problem, streams)
    networks.begin(0)
    mirror = networks.draw()
    optimizer = torch.optim.SGD(mirror.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    drawn = []
    draw = trajectory.networks.draw
    trajectory.networks.draw = lambda: drawn.append(draw()) or drawn[-1]
    trajectory.advance(1)
    for round_ in range(2):
        order = torch.randperm(len(problem.train), generator=streams.generator("net-images", 0, round_))[:16]
        images, labels = problem.preprocessing.to_inputs(problem.train.images[order]), problem.train.labels[order]
        places = torch.randperm(16, generator=streams.generator("net-order", 0, round_ + 1, 0))
        for batch in places.split(8):
            optimizer.zero_grad()
            functional.cross_entropy(mirror(images[batch]), labels[batch]).backward()
            optimizer.step()
    assert method.setting.n_data == 16
    for mine, wanted in zip(drawn[0].parameters(), mirror.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ("n_data=0", []),
        ("n_data=9", [(16, 1), (16, 1)]),
        ("n_data=999", [(36, 1), (36, 1)]),
        ("n_data=0,early=2", [(36, 2)]),
    ],
)
def test_how_much_is_trained(options, calls, monkeypatch):
    seen = []
    monkeypatch.setattr(idc, "train_classifier", lambda *words, **more: seen.append((len(words[1]), words[3].epochs)))
    toy_trajectory(f"idc[inner=3,batch_real=6,batch_train=8,{options}]").advance(1)
    assert seen == calls


def test_training_is_augmented_with_cutmix(monkeypatch):
    augmentations = []
    original = idc.train_classifier

    def watched(*words, augment, **more):
        augmentations.append(augment(*words[1:3], torch.Generator().manual_seed(0)))
        return original(*words, augment=augment, **more)

    monkeypatch.setattr(idc, "train_classifier", watched)
    toy_trajectory(f"idc[{FEW}]").advance(1)
    images, labels = augmentations[0]
    assert labels.shape == (len(images), 3), "class weights"


# --- sets and resumption ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_", ["multi-formation", "unit-pixels", "pixels", "downsample", "multi-formation[factor=3]"])
def test_a_set_is_in_range_whatever_the_parametrisation(as_):
    distilled = toy_trajectory(f"idc[{FEW},as={as_},lr_img=5]").advance(2)
    assert len(distilled.images) == 3
    if as_ != "pixels":
        assert 0 <= float(distilled.images.min()) <= float(distilled.images.max()) <= 1


@pytest.mark.parametrize("update", ["class", "joint"])
def test_it_goes_on_bit_for_bit(update):
    name = f"idc[{FEW},update={update}]"
    wanted = toy_trajectory(name, ipc=2).advance(3)
    parts, later = toy_trajectory(name, ipc=2), toy_trajectory(name, ipc=2)
    parts.advance(2)
    later.restore(*parts.state())
    assert torch.equal(later.advance(3).images, wanted.images)


def test_a_class_may_have_fewer_real_images_than_a_batch():
    assert toy_trajectory("idc[inner=1,batch_real=500,n_data=8]").advance(1) is not None


def test_shared_tensors_are_updated_jointly(monkeypatch):
    """A decoder's weights move with every class, so that no class can be matched before its turn."""
    original = IDC.__init__

    def with_another(self, task, options):
        monkeypatch.setattr(idc.PixelMethod, "learned", lambda self: {"images": self.images, "decoder": self.images})
        original(self, task, options)

    monkeypatch.setattr(IDC, "__init__", with_another)
    assert method_of(f"idc[{FEW}]").update == "joint"
    with pytest.raises(UsageError, match=r"tensors that classes share; use update=joint"):
        method_of(f"idc[{FEW},update=class]")


def test_work_counts_the_real_training():
    little, much = (method_of(f"idc[inner=2,n_data={count}]").work() for count in (0, 16))
    assert much - little == 2 * 3 * 16


def test_an_unknown_parametrisation_is_refused():
    with pytest.raises((UsageError, DataError)):
        method_of("idc[as=nonsense]")
