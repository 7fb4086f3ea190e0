"""Views: crops against torchvision's, mixing by area, what an option may name, and the bits of their parameters."""

import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from harness.types.seeds import Streams
from mpdd_plugins.augmentations import views
from tests.toys import toy_problem

IMAGES = torch.rand(6, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def drawn(strategy, seed=0, count=6, shape=(12, 16)):
    return views.draw_view(strategy, count, shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(3))
def test_a_resized_crop_is_torchvisions(seed):
    view = drawn("resized-crop:0.2", seed)
    for image, seen, box in zip(IMAGES, view.cropped(IMAGES), view.boxes.tolist(), strict=True):
        top, left, tall, wide = box
        area = tall * wide / (12 * 16)
        assert 0.15 < area <= 1
        assert 0 <= top <= 12 - tall
        assert 0 <= left <= 16 - wide
        wanted = transforms.resized_crop(image, top, left, tall, wide, [12, 16], antialias=False)
        torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-5)


def test_a_crop_is_a_shift_with_zeros():
    view = drawn("crop")
    assert (view.boxes[:, :2].abs() <= 2).all()
    for image, seen, box in zip(IMAGES, view.cropped(IMAGES), view.boxes.tolist(), strict=True):
        wanted = transforms.pad(image, [2, 2, 2, 2])[:, 2 + box[0] :, 2 + box[1] :][:, :12, :16]
        torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-5)


def test_nothing_is_changed_without_operations_and_by_a_crop_of_all():
    assert torch.equal(drawn("none").apply(IMAGES), IMAGES)
    square = IMAGES[..., :12]
    whole = drawn("resized-crop:1", shape=(12, 12)).apply(square)
    assert torch.equal(whole, square), "no other ratio fits in, so all of it is taken"


def test_about_half_of_the_images_are_mirrored():
    view = drawn("flip", count=400)
    assert 160 < int(view.flips.sum()) < 240
    seen = drawn("flip").apply(IMAGES)
    for flipped, image, own in zip(drawn("flip").flips, IMAGES, seen, strict=True):
        assert torch.equal(own, image.flip(2) if flipped else image)


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_weights_labels_by_the_area_that_is_left(seed):
    view, labels = drawn("cutmix", seed), torch.arange(6)
    seen, weights = view.apply(IMAGES), view.weights(labels, IMAGES.shape, 6)
    share = (seen == IMAGES).float().mean((1, 2, 3))
    for image, partner in enumerate(view.partners.tolist()):
        own = float(share[image]) if partner != image else 1.0
        assert float(weights[image, image]) == pytest.approx(own, abs=1e-6)
        assert float(weights[image].sum()) == pytest.approx(1, abs=1e-6)


def test_mixup_averages_images_and_labels_by_a_beta_share():
    shares = torch.cat([drawn("mixup:0.8", seed).share for seed in range(300)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(shares.var()) == pytest.approx(1 / (4 * 2.6), abs=0.015)  # of beta(0.8, 0.8)
    view = drawn("mixup")
    share, partners = float(view.share), view.partners.long()
    torch.testing.assert_close(view.apply(IMAGES), share * IMAGES + (1 - share) * IMAGES[partners])
    weights = view.weights(torch.eye(6), IMAGES.shape, 6)
    torch.testing.assert_close(weights, share * torch.eye(6) + (1 - share) * torch.eye(6)[partners])


def test_cutmix_has_a_probability():
    boxes = [drawn("cutmix:0.3", seed).box for seed in range(200)]
    assert 0.2 < sum(bool(box.any()) for box in boxes) / 200 < 0.4


@pytest.mark.parametrize(
    ("typed", "checked"),
    [
        ("cutmix+flip", "flip+cutmix"),
        ("resized-crop:0.08+cutmix:1", "resized-crop+cutmix"),
        ("cutmix:0.5 + resized-crop:0.25", "resized-crop:0.25+cutmix:0.5"),
        ("mixup:2", "mixup:2"),
        ("none", "none"),
        (None, None),
    ],
)
def test_an_option_names_operations_in_any_order(typed, checked):
    assert views.check_strategy(typed) == checked


@pytest.mark.parametrize(
    ("typed", "fault"),
    [
        ("turn", "there is no operation 'turn'"),
        ("flip+flip", "named twice"),
        ("flip:1", "takes no number"),
        ("cutmix:x", "has no number"),
        ("cutmix:1.5", "out of range"),
        ("resized-crop:0", "out of range"),
        ("mixup:inf", "out of range"),
        ("crop+resized-crop", "exclude each other"),
        ("cutmix+mixup", "exclude each other"),
    ],
)
def test_what_no_option_can_be_is_refused(typed, fault):
    with pytest.raises(ValueError, match=fault):
        views.check_strategy(typed)


def test_images_that_are_never_mirrored_are_not():
    own = views.own_strategy("crop+flip+mixup")
    assert own(toy_problem(augmentations={"dsa": "crop"})) == "crop+mixup"
    assert own(toy_problem(augmentations={"dsa": "crop+flip"})) == "crop+flip+mixup"


def test_an_augmentation_that_mixes_returns_class_weights_always():
    augment, labels = views.view_augmentation("flip+cutmix:0.5", 6), torch.arange(6)
    for seed in range(4):
        seen, weights = augment(IMAGES, labels, torch.Generator().manual_seed(seed))
        assert seen.shape == IMAGES.shape
        assert (weights.shape, weights.dtype) == ((6, 6), torch.float32)
    plain = views.view_augmentation("crop", 6)
    assert torch.equal(
        plain(IMAGES, Streams(0).generator("a", 0)), views.draw_view(
            "crop", 6, (12, 16), Streams(0).generator("a", 0)
        ).apply(IMAGES)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "bits"),
    [
        ("none", 0),
        ("flip", 6),
        ("crop", 6 * 32),
        ("resized-crop:0.2+flip+cutmix:0.5", 6 * (64 + 1 + 32) + 64),
        ("crop+flip+mixup", 6 * (32 + 1 + 32) + 32),
    ],
)
def test_bits_of_a_view_are_those_of_its_operations(strategy, bits):
    assert views.parameter_bits(strategy, 6) == bits


def test_bits_of_a_view_are_those_that_it_holds():
    view = drawn("resized-crop+flip+cutmix")
    held = (view.boxes, view.partners, view.box)
    bits = len(view.flips) + sum(8 * part.numel() * part.element_size() for part in held)
    assert views.parameter_bits("resized-crop+flip+cutmix", 6) == bits
