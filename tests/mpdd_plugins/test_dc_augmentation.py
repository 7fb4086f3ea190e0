"""DC's augmentation: each operation's range and fill, and which one each image gets."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from mpdd_plugins.augmentations import dc
from mpdd_plugins.augmentations.dc import dc_augmentation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def copies(image, count):
    return image.expand(count, *image.shape).clone()


def test_crop_pads_by_4_with_the_batchs_mean_and_cuts_at_offsets_of_0_to_7():
    image = torch.arange(36.0).view(1, 6, 6) - 17.5 + torch.tensor([4.0, -8.0]).view(2, 1, 1)  # the means are 4 and -8
    cropped = dc_augmentation("crop")(copies(image, 1600), generator()).numpy()

    padded = np.empty((2, 14, 14), dtype=np.float32)
    padded[0], padded[1] = 4, -8
    padded[:, 4:10, 4:10] = image
    windows = {padded[:, r : r + 6, c : c + 6].tobytes(): (r, c) for r in range(8) for c in range(8)}
    offsets = [windows[np.ascontiguousarray(each).tobytes()] for each in cropped]
    for axis in (0, 1):
        counts = np.bincount([offset[axis] for offset in offsets], minlength=8)
        assert len(counts) == 8
        assert stats.chisquare(counts).pvalue > 0.001


def test_crop_fills_with_the_mean_over_the_whole_batch():
    batch = torch.stack([torch.full((1, 6, 6), 2.0), torch.full((1, 6, 6), 8.0)])
    seen = {value for seed in range(40) for value in dc_augmentation("crop")(batch, generator(seed)).flatten().tolist()}
    assert seen == {2.0, 5.0, 8.0}


def scaled_by_hand(image, new_height, new_width):
    """Nearest pixel, centred, the rest 0."""

    def sources(side, new):
        start = (new - side) // 2 if new > side else -((side - new) // 2)
        return [i * side // new if 0 <= i < new else None for i in range(start, start + side)]

    _, height, width = image.shape
    result = np.zeros_like(image)
    for y, from_y in enumerate(sources(height, new_height)):
        for x, from_x in enumerate(sources(width, new_width)):
            if from_y is not None and from_x is not None:
                result[:, y, x] = image[:, from_y, from_x]
    return result


def test_scale_resizes_each_axis_by_0_8_to_1_2_and_fills_with_zero():
    image = torch.arange(20 * 20, dtype=torch.float32).view(1, 20, 20) + 1
    scaled = dc_augmentation("scale")(copies(image, 1500), generator()).numpy()
    sizes = range(16, 24)  # int(u * 20) for u in [0.8, 1.2)
    by_hand = {scaled_by_hand(image.numpy(), h, w).tobytes(): (h, w) for h in sizes for w in sizes}
    assert len(by_hand) == 64
    scaled_sizes = [by_hand[np.ascontiguousarray(each).tobytes()] for each in scaled]
    for axis in (0, 1):
        counts = np.bincount([size[axis] for size in scaled_sizes])[16:]
        assert stats.chisquare(counts).pvalue > 0.001
    assert abs(np.corrcoef(np.array(scaled_sizes).T)[0, 1]) < 0.1


def test_rotate_turns_by_whole_degrees_from_minus_45_to_44_and_fills_with_the_mean():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((2, 9, 9)).astype(np.float32)) + 3
    turned = dc_augmentation("rotate")(copies(image, 900), generator()).numpy()
    fill = float(image.mean())
    angles = np.arange(-46, 46)
    by_hand = np.stack(
        [ndimage.rotate(image.numpy(), angle, axes=(-2, -1), reshape=False, cval=fill) for angle in angles]
    )
    distances = np.abs(turned[:, None] - by_hand[None]).max(axis=(2, 3, 4))
    assert distances.min(1).max() < 1e-4
    turned_by = angles[distances.argmin(1)]
    assert turned_by.min() >= -45
    assert turned_by.max() <= 44
    counts = np.histogram(turned_by, bins=np.arange(-45, 46, 10))[0]
    assert stats.chisquare(counts).pvalue > 0.001


def test_rotate_turns_about_the_centre():
    image = torch.zeros(1, 21, 21)
    image[0, 10, 18] = 1.0  # 8 to the right of the centre
    for turned in dc_augmentation("rotate")(copies(image, 25), generator()):
        row, column = divmod(int(turned.argmax()), 21)
        assert math.hypot(row - 10, column - 10) == pytest.approx(8, abs=0.8)
        assert abs(math.degrees(math.atan2(row - 10, column - 10))) <= 50


def test_noise_is_normal_with_a_standard_deviation_of_a_thousandth():
    images = torch.rand(50, 1, 10, 10, generator=generator(1))
    added = (dc_augmentation("noise")(images, generator()) - images).flatten().double().numpy()
    assert added.std() == pytest.approx(0.001, rel=0.05)
    assert stats.kstest(added / 0.001, "norm").pvalue > 0.001


def test_each_image_gets_one_operation_drawn_uniformly(monkeypatch):
    for code, name in enumerate(dc.OPERATIONS, start=1):
        monkeypatch.setitem(dc.OPERATIONS, name, lambda image, fill, draws, code=code: image + 10**code)
    added = dc_augmentation("crop+scale+rotate+noise")(torch.zeros(2000, 1, 2, 2), generator())
    values, counts = added.flatten(1).unique(dim=0, return_counts=True)
    assert values[:, 0].tolist() == [10, 100, 1000, 10000]
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


@pytest.mark.parametrize("strategy", ["crop", "scale", "rotate", "noise", "crop+scale+rotate"])
def test_augmented_images_are_a_function_of_the_generator_alone(strategy):
    images = torch.rand(6, 3, 8, 8, generator=generator(1))
    images_before, augment = images.clone(), dc_augmentation(strategy)
    torch.manual_seed(1)
    np.random.seed(1)
    state = torch.get_rng_state()
    first = augment(images, generator())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(augment(images, generator()), first)
    assert not torch.equal(augment(images, generator(9)), first)
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert torch.equal(images, images_before)
