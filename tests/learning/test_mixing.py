"""CutMix and Mixup: boxes, labels, random numbers, and training with them in every way that there is."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from small_networks import CLASSES, data, draw_of, networks_of

from harness import Composed, CutMix, LabelledAugment, Mixup, Recipe, cross_entropy, squared_error, train_classifier
from harness.learning.mixing import cutmix_box
from harness.learning.training import train_together

KINDS = [CutMix, Mixup]
RECIPE = Recipe(epochs=3, lr=0.05, batch=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(values, side=8):
    """Images of one value each, so that a pixel says which image it is from."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 2, side, side).contiguous()


@pytest.mark.parametrize(
    ("share", "centre", "box", "own"),
    [
        (0.3, (5, 20), (0, 7, 18, 32), 0.560546875),
        (0.9, (0, 31), (0, 26, 5, 32), 0.970703125),
        (0.55, (16, 16), (6, 6, 26, 26), 0.609375),
    ],
)
def test_boxes_and_label_weights_are_those_of_idcs_code(share, centre, box, own):
    """Golden values of snu-mllab/Efficient-Dataset-Condensation."""
    assert cutmix_box(share, centre, (32, 32)) == box
    images, weights = flat([0.0, 1.0], 32), torch.eye(2, dtype=torch.float64)
    mixed, labels = CutMix(2).mix(images, weights, torch.tensor([1, 0]), share, centre)
    torch.testing.assert_close(labels, torch.tensor([[own, 1 - own], [1 - own, own]], dtype=torch.float64))
    assert float(mixed[0, 0].mean()) == pytest.approx(1 - own)
    assert bool((mixed[0, :, box[0] : box[2], box[1] : box[3]] == 1).all())


@given(
    share=st.floats(0, 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    at=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_boxes_are_within_the_image_and_never_larger_than_their_share(share, height, width, at):
    top, left, bottom, right = cutmix_box(share, (int(at[0] * height), int(at[1] * width)), (height, width))
    assert 0 <= top <= bottom <= height
    assert 0 <= left <= right <= width
    assert (bottom - top) * (right - left) <= (1 - share) * height * width + 1e-6


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 9),
    beta=st.floats(0.1, 5),
    kind=st.sampled_from(KINDS),
)
def test_labels_are_the_share_of_pixels_of_each_image(seed, count, beta, kind):
    images, labels = flat([float(k) for k in range(count)]), torch.arange(count)
    mixed, weights = kind(count, beta=beta)(images, labels, generator(seed))
    values = torch.arange(count, dtype=torch.float64)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), weights @ values)
    torch.testing.assert_close(weights.sum(1), torch.ones(count, dtype=torch.float64))
    assert bool((weights >= 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_mixed_with_the_probability(kind):
    mixing, images = kind(4, probability=0.5), flat([0.0, 1.0, 2.0, 3.0])
    unmixed = sum(mixing(images, torch.arange(4), generator(seed))[0] is images for seed in range(2000))
    assert stats.binomtest(unmixed, 2000, 0.5).pvalue > 1e-4
    never, weights = kind(4, probability=0.0)(images, torch.arange(4), generator())
    assert never is images
    assert torch.equal(weights, torch.eye(4, dtype=torch.float64)), "labels have the same form, mixed or not"


@pytest.mark.parametrize("beta", [0.2, 1.0, 3.0])
def test_shares_are_of_the_beta_distribution(beta):
    images, shares = flat([0.0, 1.0], 1), []
    for seed in range(3000):
        mixed, _ = Mixup(2, beta=beta)(images, torch.tensor([0, 1]), generator(seed))
        if float(mixed.sum()) and float(mixed[0, 0]) != 0:
            shares.append(1 - float(mixed[0, 0, 0, 0]))
    assert stats.kstest(shares, stats.beta(beta, beta).cdf).pvalue > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_class_weights_and_real_values_are_mixed_as_they_are(kind):
    images, labels = flat([0.0, 1.0]), torch.tensor([[-0.5, 2.0], [3.0, 0.25]], dtype=torch.float64)
    mixed, weights = kind(2)(images, labels, generator(1))
    share = mixed.mean((1, 2, 3)).view(2, 1)
    torch.testing.assert_close(weights, (1 - share) * labels[0] + share * labels[1])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_drawn_elsewhere_or_changed_in_place(kind):
    images, labels = data()
    before, state = images.clone(), torch.get_rng_state()
    first = kind(CLASSES)(images, labels, generator())
    torch.manual_seed(9)
    second = kind(CLASSES)(images, labels, generator())
    assert all(torch.equal(mine, other) for mine, other in zip(first, second, strict=True))
    assert torch.equal(images, before)
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"classes": 0}, "at least one class"),
        ({"probability": 1.5}, r"in \[0, 1\], not 1.5"),
        ({"probability": -0.1}, r"in \[0, 1\]"),
        ({"beta": 0.0}, "above 0, not 0"),
        ({"beta": math.inf}, "finite"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_mixing_is_refused(kind, words, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"classes": 3, **words})


def brighten(images, generator):
    return images + torch.rand(len(images), generator=generator, dtype=images.dtype).view(-1, 1, 1, 1)


def test_augmentations_in_turn_share_a_stream():
    images, labels = data()
    stream = generator()
    bright = brighten(images, stream)
    wanted = CutMix(CLASSES)(bright, labels, stream)
    actual = Composed(brighten, CutMix(CLASSES))(images, labels, generator())
    assert all(torch.equal(mine, other) for mine, other in zip(actual, wanted, strict=True))
    unmixed, same = Composed(brighten)(images, labels, generator())
    assert torch.equal(unmixed, bright)
    assert torch.equal(same, labels)


# --- training ---------------------------------------------------------------------------------------------------------

AUGMENTS = {
    "cutmix": CutMix(CLASSES),
    "mixup": Mixup(CLASSES, probability=0.7),
    "in turn": Composed(brighten, CutMix(CLASSES, probability=0.5)),
}
LOSSES = {"cross-entropy": cross_entropy, "squared error": squared_error}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", AUGMENTS)
def test_a_step_sees_the_mixed_images_with_their_labels(name, loss):
    seen = []

    def watched(batch):
        seen.append((batch.images, batch.labels, batch.index))
        return LOSSES[loss](batch)

    images, labels = data()
    train_classifier(
        networks_of("mlp[width=8]", 1)[0], images, labels, RECIPE, draw_of(0), loss=watched, augment=AUGMENTS[name]
    )
    assert len(seen) == 3 * 3
    stream = draw_of(0)("augment", 0)
    for mixed, weights, index in seen[:3]:
        wanted = AUGMENTS[name](images[index], labels[index], stream)
        assert torch.equal(mixed, wanted[0])
        assert torch.equal(weights, wanted[1])


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("network", ["mlp[width=8]", "convnet[width=4,depth=2,norm=batch]"])
def test_networks_train_at_once_with_mixed_labels_of_their_own(network, name):
    images, labels = data()
    draws = [draw_of(k) for k in range(3)]
    together, alone = networks_of(network), networks_of(network)
    curves = train_together(together, images, labels, RECIPE, draws, [cross_entropy] * 3, AUGMENTS[name])
    for k, (own, draw) in enumerate(zip(alone, draws, strict=True)):
        assert curves[k] == pytest.approx(
            train_classifier(own, images, labels, RECIPE, draw, augment=AUGMENTS[name]), rel=1e-9
        )
        for mine, other in zip(together[k].parameters(), own.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def test_slices_and_the_whole_train_alike_with_cutmix(monkeypatch):
    import harness.learning.training as training

    images, labels = data(40)
    recipe, augment = Recipe(2, 0.05, batch=100), CutMix(CLASSES, probability=0.8)
    whole, sliced = (networks_of("convnet[width=4,depth=2]", 1)[0] for _ in range(2))
    wanted = train_classifier(whole, images, labels, recipe, draw_of(0), augment=augment, sliced=False)
    used, original = [], training.in_slices
    monkeypatch.setattr(training, "is_worth_slicing", lambda network, images: True)
    monkeypatch.setattr(training, "in_slices", lambda *words: used.append(1) or original(*words))
    actual = train_classifier(sliced, images, labels, recipe, draw_of(0), augment=augment)
    assert len(used) == 4
    assert actual == pytest.approx(wanted, rel=1e-10)
    for mine, other in zip(sliced.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def test_an_augmentation_of_somebodys_own_may_look_at_labels():
    class ByClass(LabelledAugment):
        def __call__(self, images, labels, generator):
            return images + labels.view(-1, 1, 1, 1), labels

    seen = []

    def loss(batch):
        seen.append((batch.images - images[batch.index])[:, 0, 0, 0] - batch.labels)
        return cross_entropy(batch)

    images, labels = data()
    train_classifier(
        networks_of("mlp[width=8]", 1)[0], images, labels, RECIPE, draw_of(0), loss=loss, augment=ByClass()
    )
    assert torch.cat(seen).abs().max() < 1e-12


def test_squared_error_is_the_mean_over_images_and_outputs():
    images, labels = data()
    generator_ = generator(4)
    real = torch.randn(len(labels), CLASSES, generator=generator_, dtype=torch.float64)
    values = {}

    def loss(batch, name):
        values[name] = float(squared_error(batch).detach()), batch.logits.detach(), batch.index
        return squared_error(batch)

    for name, own in {"hard": labels, "real": real}.items():
        recipe = Recipe(1, 0.05, batch=256)
        train_classifier(
            networks_of("mlp[width=8]", 1)[0], images, own, recipe, draw_of(0), loss=partial(loss, name=name)
        )
        value, logits, index = values[name]
        wanted = torch.eye(CLASSES, dtype=torch.float64)[labels] if name == "hard" else real
        assert value == pytest.approx(float((logits - wanted[index]).square().mean()))
