"""Work repeated from recordings, with a recorder that runs on a CPU: what is kept, copied in and handed back."""

import contextlib
import functools

import pytest
import torch
from test_together import assert_same, network_of, pairs_of
from torch import nn
from toys import DropoutNetwork, component

from harness import DISTANCES, Recipe, Streams, cross_entropy, train_classifier
from harness.learning import classifier, recording, stepping
from harness.learning.classifier import train_together
from harness.learning.kept import KEPT, Kept
from harness.learning.recording import recorded, with_network
from harness.learning.structure import structure_of
from harness.learning.together import match_together

SHAPE, CLASSES = (1, 16, 16), 3


class Tape:
    """Does as `Recording` does: rehearses, leaves things as they were, and works on tensors of its own."""

    made = 0

    def __init__(self, work, given, changed=()):
        Tape.made += 1
        self.work, self.given = work, [tensor.clone() for tensor in given]
        before = [tensor.detach().clone() for tensor in changed]
        self.results = [tensor.clone() for tensor in work(*self.given)]
        with torch.no_grad():
            for old, kept in zip(changed, before, strict=True):
                old.copy_(kept)

    def __call__(self, *given):
        for old, new in zip(self.given, given, strict=True):
            old.copy_(new)
        for old, new in zip(self.results, self.work(*self.given), strict=True):
            old.copy_(new)
        return self.results


@pytest.fixture
def tape(monkeypatch):
    """Records on a CPU as if it were a GPU."""
    for module in (recording, classifier):
        monkeypatch.setattr(module, "is_recorded", lambda device: True)
    monkeypatch.setattr(recording, "Recording", Tape)
    monkeypatch.setattr(recording, "_kept", Kept())
    monkeypatch.setattr(classifier, "_kept", Kept())
    monkeypatch.setattr(Tape, "made", 0)
    return Tape


def networks_of(name, count=3):
    architecture = component("architecture", name)
    return [architecture.build(SHAPE, CLASSES, Streams(0).generator("student", 0, k)).double() for k in range(count)]


def data(count=9):
    images = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return images, torch.arange(CLASSES).repeat_interleave(count // CLASSES)


def draw_of(student):
    return lambda purpose, epoch: Streams(0).generator(f"student-{purpose}", epoch, student)


RECIPES = {
    "step": Recipe(epochs=7, lr=0.05, batch=4),
    "plain": Recipe(epochs=5, lr=0.05, schedule="constant", momentum=0.0, weight_decay=0.0),
    "adam": Recipe(epochs=4, lr=0.01, optimizer="adam", schedule="cosine", batch=5),
}
NETWORKS = ["mlp[width=8]", "convnet[width=4,depth=2]", "convnet[width=4,depth=2,norm=batch]"]


def trained_one_by_one(name, recipe):
    networks = networks_of(name)
    return [train_classifier(network, *data(), recipe, draw_of(k)) for k, network in enumerate(networks)], networks


def assert_trained_alike(found, expected):
    assert found[0] == [pytest.approx(curve, rel=1e-9) for curve in expected[0]]
    for mine, other in zip(found[1], expected[1], strict=True):
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], tensor, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_trained_from_a_recording_are_those_trained_without(name, recipe, request):
    expected = trained_one_by_one(name, RECIPES[recipe])
    tape = request.getfixturevalue("tape")
    assert_trained_alike(trained_one_by_one(name, RECIPES[recipe]), expected)
    batches = {"step": 2, "plain": 1, "adam": 2}[recipe]
    assert tape.made == batches  # of each size one, which serves all three networks


def test_another_loss_recipe_or_structure_has_a_recording_of_its_own(tape):
    def train(name="mlp[width=8]", recipe=RECIPES["plain"], **more):
        train_classifier(networks_of(name, 1)[0], *data(), recipe, draw_of(0), **more)
        return tape.made

    assert [train(), train()] == [1, 1]
    assert train("mlp[width=9]") == 2
    assert train(recipe=Recipe(epochs=5, lr=0.04, schedule="constant", momentum=0.0)) == 3
    assert train(loss=lambda batch: 2 * cross_entropy(batch)) == 4
    assert train(reduced=functools.partial(contextlib.nullcontext)) == 5
    assert train() == 5


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
    assert tape.made == 0


def test_classes_are_matched_from_one_recording_for_all_networks_of_a_structure(tape):
    distance = DISTANCES["layerwise"]
    for seed in (0, 1):
        network, pairs = network_of("convnet with batch norm", seed), pairs_of(2)
        found = match_together(network, pairs, distance, contextlib.nullcontext)
        structure, recording.structure_of = recording.structure_of, lambda network: None
        expected = match_together(network, pairs, distance, contextlib.nullcontext)
        recording.structure_of = structure
        assert_same(found, expected, 1e-12)
    assert tape.made == 1
    match_together(network_of("convnet with batch norm"), pairs_of(3), distance, contextlib.nullcontext)
    match_together(network_of("mlp"), pairs_of(2), distance, contextlib.nullcontext)
    match_together(network_of("mlp"), pairs_of(2), DISTANCES["mse"], contextlib.nullcontext)
    assert tape.made == 4


def test_results_stay_when_the_next_ones_are_computed(tape):
    def work(network, images):
        return [network(images)]

    networks, images = networks_of("mlp[width=8]", 2), data()[0]
    first, second = (with_network(network, work, [images], "logits")[0] for network in networks)
    assert torch.equal(first, networks[0](images))
    assert torch.equal(second, networks[1](images))
    assert tape.made == 1


def test_what_cannot_be_recorded_is_done_as_it_is_and_said(monkeypatch, caplog):
    monkeypatch.setattr(recording, "is_recorded", lambda device: True)

    def refuse(*given):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recording, "Recording", refuse)
    work = recorded(lambda images: [images + 1], [torch.zeros(2)])
    assert work(torch.ones(2))[0].tolist() == [2, 2]
    (message,) = caplog.messages
    assert message.startswith("a step is not recorded for the GPU, which is slower: operation not permitted")
    assert "--compile never" in message


def test_nothing_is_recorded_on_a_cpu():
    assert recorded(print, [torch.zeros(2)]) is print
    assert not recording.is_recorded(torch.device("cuda"))  # as long as nothing is compiled


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
    kept, made = Kept(), []

    def fetch(key):
        return kept.fetch(key, lambda: made.append(key) or key)

    for key in [*range(KEPT), 0, KEPT, 0, 1]:
        assert fetch(key) == key
    assert made == [*range(KEPT), KEPT, 1]


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
    hooked.register_forward_hook(lambda *given: None)
    assert structure_of(hooked) is None
    frozen = Scaled(1.0)
    frozen.layer.weight.requires_grad_(False)
    assert structure_of(frozen) != structure_of(Scaled(1.0))
