"""Work repeated from recordings, with a recorder that runs on a CPU: what is kept, copied in and handed back."""

import contextlib
import dataclasses
import functools
import gc
import weakref

import pytest
import torch
from matched_pairs import assert_same, network_of, pairs_of
from small_networks import CLASSES, SHAPE, data, draw_of, networks_of
from torch import nn
from torch.nn import functional
from toys import DropoutNetwork

from harness import (
    DISTANCES,
    CutMix,
    DrawingLoss,
    OptimizerState,
    Recipe,
    cross_entropy,
    squared_error,
    train_classifier,
)
from harness.compute import cuda_graphs as recording
from harness.compute.compiling import set_compilation
from harness.compute.cuda_graphs import try_to_record, with_network
from harness.compute.lru_cache import CAPACITY, LruCache
from harness.compute.network_structure import structure_of
from harness.compute.precision import float32_products
from harness.learning import training as classifier
from harness.learning import training_step as stepping
from harness.learning.batched_matching import match_together
from harness.learning.training import train_together


class Tape:
    """Does as `Recording` does: rehearses, leaves things as they were, and works on tensors of its own."""

    count = 0

    def __init__(self, work, inputs, changed=()):
        Tape.count += 1
        self.work, self.inputs = work, [tensor.clone() for tensor in inputs]
        before = [tensor.detach().clone() for tensor in changed]
        self.results = [tensor.clone() for tensor in work(*self.inputs)]
        with torch.no_grad():
            for old, former in zip(changed, before, strict=True):
                old.copy_(former)

    def __call__(self, *inputs):
        for old, new in zip(self.inputs, inputs, strict=True):
            old.copy_(new)
        for old, new in zip(self.results, self.work(*self.inputs), strict=True):
            old.copy_(new)
        return self.results


@pytest.fixture
def tape(monkeypatch):
    """Records on a CPU as if it were a GPU."""
    for module in (recording, classifier, stepping):
        monkeypatch.setattr(module, "is_recorded", lambda device: not recording._RecordingFailure.happened)
    monkeypatch.setattr(recording, "Recording", Tape)
    monkeypatch.setattr(recording, "_recordings", LruCache())
    monkeypatch.setattr(recording, "_run_counts", LruCache())
    monkeypatch.setattr(recording._RecordingFailure, "happened", False)
    monkeypatch.setattr(classifier, "_recorded_steps", LruCache())
    monkeypatch.setattr(Tape, "count", 0)
    # The rate stays a number: as a tensor it has the precision of float32.
    plain = Recipe.new_optimizer
    monkeypatch.setattr(Recipe, "new_optimizer", lambda recipe, parameters, **_: plain(recipe, parameters))
    return Tape


RECIPES = {
    "step": Recipe(epochs=7, lr=0.05, batch=4),
    "plain": Recipe(epochs=5, lr=0.05, schedule="constant", momentum=0.0, weight_decay=0.0),
    "adam": Recipe(epochs=4, lr=0.01, optimizer="adam", schedule="cosine", batch=5),
}
NETWORKS = ["mlp[width=8]", "convnet[width=4,depth=2]", "convnet[width=4,depth=2,norm=batch]"]


def trained_one_by_one(name, recipe):
    networks = networks_of(name)
    return [train_classifier(network, *data(), recipe, draw_of(k)) for k, network in enumerate(networks)], networks


def assert_trained_alike(actual, expected):
    assert actual[0] == [pytest.approx(curve, rel=1e-9) for curve in expected[0]]
    for mine, other in zip(actual[1], expected[1], strict=True):
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], tensor, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_trained_from_a_recording_are_those_trained_without(name, recipe, request):
    expected = trained_one_by_one(name, RECIPES[recipe])
    tape = request.getfixturevalue("tape")
    assert_trained_alike(trained_one_by_one(name, RECIPES[recipe]), expected)
    batches = {"step": 2, "plain": 1, "adam": 2}[recipe]
    assert tape.count == batches  # of each size one, which serves all three networks


def test_another_structure_optimiser_or_condition_has_a_recording_of_its_own(tape):
    def train(name="mlp[width=8]", recipe=RECIPES["plain"], **more):
        train_classifier(networks_of(name, 1)[0], *data(), recipe, draw_of(0), **more)
        return tape.count

    assert [train(), train()] == [1, 1]
    assert train("mlp[width=9]") == 2
    assert train(recipe=dataclasses.replace(RECIPES["plain"], momentum=0.5)) == 3
    assert train(recipe=dataclasses.replace(RECIPES["plain"], lr=0.1, epochs=2, schedule="cosine")) == 3
    assert train(reduced=contextlib.nullcontext) == 3
    assert train(reduced=functools.partial(torch.autocast, "cpu", torch.bfloat16)) == 4
    with float32_products("tf32"):
        assert train() == 5
    assert train() == 5


def test_a_loss_of_somebodys_own_is_recorded_for_one_training(request):
    scale = {"of": 1.0}

    def loss(batch):
        return cross_entropy(batch) * scale["of"]

    def both():
        curves = []
        for scale["of"] in (1.0, 3.0):
            network = networks_of("mlp[width=8]", 1)[0]
            curves.append(train_classifier(network, *data(), RECIPES["plain"], draw_of(0), loss=loss))
        return curves

    expected = both()
    tape = request.getfixturevalue("tape")
    assert both() == [pytest.approx(curve, rel=1e-9) for curve in expected]
    assert tape.count == 2


def test_hard_and_soft_labels_have_recordings_of_their_own(request):
    images, hard = data(1)
    soft = torch.rand(3, CLASSES, generator=torch.Generator().manual_seed(2)).double()

    def both():
        networks = networks_of("mlp[width=8]", 2)
        return [
            train_classifier(network, images, labels, RECIPES["plain"], draw_of(0))
            for network, labels in zip(networks, (soft, hard), strict=True)
        ]

    expected = both()
    request.getfixturevalue("tape")
    assert both() == [pytest.approx(curve, rel=1e-9) for curve in expected]


class Weighted(DrawingLoss):
    """Weights each image by a random number, which a recording would repeat if it were drawn inside."""

    def draw(self, count, generator):
        return torch.rand(count, generator=generator, dtype=torch.float64)

    def __call__(self, batch):
        return (functional.cross_entropy(batch.logits, batch.labels, reduction="none") * batch.numbers).mean()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion", "lamb"])
@pytest.mark.parametrize("loss", [cross_entropy, squared_error, Weighted()], ids=["ce", "mse", "weighted"])
def test_recorded_steps_see_mixed_labels_and_the_numbers_of_each_step(optimizer, loss, request):
    recipe = Recipe(0, 0.02, optimizer, "milestones", batch=4, steps=8, milestones=(3, 6), factor=0.5)

    def train():
        networks = networks_of("mlp[width=8]", 2)
        how = {"loss": loss, "augment": CutMix(CLASSES, 0.6)}
        return [train_classifier(net, *data(), recipe, draw_of(k), **how) for k, net in enumerate(networks)], networks

    expected = train()
    tape = request.getfixturevalue("tape")
    assert_trained_alike(train(), expected)
    assert tape.count == (4 if isinstance(loss, Weighted) else 2), "batches of four and of one"


@pytest.mark.parametrize("loss", [cross_entropy, lambda batch: cross_entropy(batch)], ids=["kept", "own"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lion", "lamb"])
def test_an_optimisers_state_goes_on_from_recording_to_recording(optimizer, loss, request):
    """Two networks in turn, on the one stage that their structure has."""
    recipe = Recipe(6, 0.02, optimizer, "constant", batch=4)

    def train(spans):
        networks, states = networks_of("mlp[width=8]", 2), [OptimizerState(), OptimizerState()]
        for span in spans:
            for k, network in enumerate(networks):
                train_classifier(network, *data(), recipe, draw_of(k), loss=loss, state=states[k], span=span)
        return networks, states

    expected, wanted = train([None])
    request.getfixturevalue("tape")
    actual, states = train([range(2), range(2, 6)])
    assert_trained_alike(([], actual), ([], expected))
    for state, other in zip(states, wanted, strict=True):
        assert state.tensors.keys() == other.tensors.keys()
        for name, tensor in other.tensors.items():
            torch.testing.assert_close(state.tensors[name], tensor, rtol=1e-8, atol=1e-10)


def test_networks_trained_at_once_from_a_recording_too(request):
    expected = trained_one_by_one(NETWORKS[2], RECIPES["step"])
    request.getfixturevalue("tape")
    networks = networks_of(NETWORKS[2])
    draws = [draw_of(k) for k in range(3)]
    curves = train_together(networks, *data(), RECIPES["step"], draws, [cross_entropy] * 3)
    assert_trained_alike((curves, networks), expected)


def test_a_network_that_draws_random_numbers_is_not_recorded(tape):
    network = DropoutNetwork(SHAPE, CLASSES).double()
    train_classifier(network, *data(), RECIPES["plain"], draw_of(0))
    assert tape.count == 0


def test_classes_are_matched_from_one_recording_for_all_networks_of_a_structure(request):
    distance = DISTANCES["layerwise"]

    def match(seed, ipc=2, name="convnet with batch norm", distance=distance):
        return match_together(network_of(name, seed), pairs_of(ipc), distance, contextlib.nullcontext)

    expected = [match(seed) for seed in range(4)]
    tape = request.getfixturevalue("tape")
    for seed in range(4):
        assert_same(match(seed), expected[seed], 1e-12)
        assert tape.count == (seed >= recording.RUNS_BEFORE_RECORDING)
    for _ in range(recording.RUNS_BEFORE_RECORDING + 2):
        match(0, ipc=3)
        match(0, name="mlp")
        match(0, name="mlp", distance=DISTANCES["mse"])
    assert tape.count == 4


def test_results_stay_when_the_next_ones_are_computed(tape, monkeypatch):
    def work(network, images):
        return [network(images)]

    monkeypatch.setattr(recording, "RUNS_BEFORE_RECORDING", 0)
    networks, images = networks_of("mlp[width=8]", 2), data()[0]
    first, second = (with_network(network, work, [images], "logits", contextlib.nullcontext)[0] for network in networks)
    assert torch.equal(first, networks[0](images))
    assert torch.equal(second, networks[1](images))
    assert tape.count == 1


def test_what_cannot_be_recorded_is_done_as_it_is_from_then_on_and_said_once(request, monkeypatch, caplog):
    expected = trained_one_by_one("convnet[width=4,depth=2,norm=batch]", RECIPES["step"])
    request.getfixturevalue("tape")
    monkeypatch.setattr(recording, "Recording", failing(ValueError("not permitted when stream is capturing\nmore")))
    assert_trained_alike(trained_one_by_one("convnet[width=4,depth=2,norm=batch]", RECIPES["step"]), expected)
    (message,) = caplog.messages
    assert message.startswith("no steps are recorded for the GPU, which is slower: not permitted when stream is")
    assert message.endswith("(--compile never does not try)")


@pytest.mark.usefixtures("tape")
def test_an_interrupt_while_something_is_recorded_is_one(monkeypatch):
    monkeypatch.setattr(recording, "Recording", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        try_to_record(lambda images: [images + 1], [torch.zeros(2)])


def failing(cause):
    """A recorder that rehearses and fails as torch does: its own error hides the cause."""

    def record(work, inputs, changed=()):
        Tape(work, inputs, changed)
        try:
            raise cause
        except BaseException:
            raise RuntimeError("capture_end failed")  # noqa: B904

    return record


def test_a_gpu_records_where_networks_are_compiled():
    gpu = torch.device("cuda")
    assert not recording.is_recorded(gpu)
    set_compilation("auto")
    try:
        assert recording.is_recorded(gpu)
        assert not recording.is_recorded(torch.device("cpu"))
        assert try_to_record(print, [torch.zeros(2)]) is None
    finally:
        set_compilation("never")


def test_a_trained_network_is_given_back_at_once():
    network = networks_of("mlp[width=8]", 1)[0]
    gc.disable()
    try:
        train_classifier(network, *data(), RECIPES["plain"], draw_of(0), loss=lambda batch: cross_entropy(batch))
        seen = weakref.ref(network)
        del network
        assert seen() is None
    finally:
        gc.enable()


def test_a_gradient_in_another_order_of_memory_is_taken_for_what_it_is():
    weight = nn.Parameter(torch.zeros(2, 3))
    gradient = torch.arange(6.0).view(3, 2).T
    step = stepping.Stepper(
        [weight], [], Recipe(momentum=0.0, weight_decay=0.0), lambda *batch: (weight.sum(), [gradient])
    )
    step.set_rate(1.0)
    step(torch.arange(2), torch.zeros(2), torch.zeros(2))
    assert torch.equal(weight, -gradient)


def test_only_what_was_used_last_is_kept():
    cache, computed = LruCache(), []

    def fetch(key):
        return cache.fetch(key, lambda: computed.append(key) or key)

    for key in [*range(CAPACITY), 0, CAPACITY, 0, 1]:
        assert fetch(key) == key
    assert computed == [*range(CAPACITY), CAPACITY, 1]


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale, self.layer = scale, nn.Linear(2, 2)

    def forward(self, images):
        return self.layer(images) * self.scale


def test_networks_that_compute_otherwise_have_other_structures():
    convnet = networks_of("convnet[width=4,depth=2]", 2)
    assert structure_of(convnet[0]) == structure_of(convnet[1])
    training = structure_of(convnet[0].train())
    assert structure_of(convnet[0].eval()) != training
    assert structure_of(Scaled(1.0)) == structure_of(Scaled(1.0))
    assert structure_of(Scaled(1.0)) != structure_of(Scaled(2.0))
    assert structure_of(Scaled(torch.ones(()))) is None
    hooked = Scaled(1.0)
    hooked.register_forward_hook(lambda *args: None)
    assert structure_of(hooked) is None
    frozen = Scaled(1.0)
    frozen.layer.weight.requires_grad_(False)
    assert structure_of(frozen) != structure_of(Scaled(1.0))
