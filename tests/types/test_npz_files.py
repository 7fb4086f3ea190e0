"""``.npz`` files of others."""

import numpy as np
import pytest
import torch

from harness import DataError, Normalize, load_distilled

PREPROCESSING = Normalize("n", torch.full((1,), 0.4), torch.full((1,), 0.2))
IMAGES = np.linspace(0, 1, 3 * 16, dtype=np.float32).reshape(3, 1, 4, 4)
LABELS = np.array([2, 0, 1])


def written(path, **arrays):
    whole = {"images": IMAGES, "labels": LABELS, **arrays}
    np.savez(path / "set.npz", **{name: value for name, value in whole.items() if value is not None})
    return path / "set.npz"


def read(path, **how):
    return load_distilled(path, **{"preprocessing": PREPROCESSING, **how})


def test_floats_are_network_inputs(tmp_path):
    distilled = read(written(tmp_path))
    assert np.array_equal(distilled.images.numpy(), IMAGES)
    assert distilled.labels.tolist() == [2, 0, 1]
    assert distilled.classes == ("0", "1", "2")
    with pytest.raises(DataError, match="does not say how its images were normalised"):
        load_distilled(written(tmp_path))


def test_pixels_are_normalised(tmp_path):
    levels = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)
    for distilled in (
        read(written(tmp_path, images=levels)),
        read(written(tmp_path, images=(levels / 255).astype(np.float32)), format="npz[pixels=true]"),
    ):
        assert np.allclose(distilled.images.numpy(), (levels / 255 - 0.4) / 0.2, atol=1e-6)


def test_optional_arrays_are_read(tmp_path):
    weights = np.full((3, 2), 0.5, dtype=">f8")
    distilled = read(
        written(tmp_path, labels=weights, step_size=np.array(0.03), classes=np.array(["x", "y"]), other=LABELS)
    )
    assert distilled.labels.tolist() == [[0.5, 0.5]] * 3
    assert (distilled.step_size, distilled.classes) == (0.03, ("x", "y"))


def test_channels_may_come_last(tmp_path):
    images = np.random.default_rng(0).random((3, 4, 5, 3), dtype=np.float32)
    distilled = read(written(tmp_path, images=images), preprocessing=Normalize("n", torch.zeros(3), torch.ones(3)))
    assert np.array_equal(distilled.images.numpy(), images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": None}, "no array 'images'"),
        ({"labels": None}, "no array 'labels'"),
        ({"images": IMAGES[0]}, "images must be"),
        ({"images": IMAGES.astype(np.int64)}, "images must be"),
        ({"images": IMAGES.astype(complex)}, "images must be"),
        ({"images": IMAGES / np.float32(np.nan)}, "NaN"),
        ({"images": np.array([{"a": 1}])}, "objects, which could run code"),
        ({"other": np.array([{"a": 1}])}, "objects, which could run code"),
        ({"labels": np.array([0, 1, -1])}, "class indices from 0"),
        ({"labels": np.array([0, 1, 2**63], dtype=np.uint64)}, "class indices from 0"),
        ({"labels": np.array([0.0, 1.0, 2.0])}, "labels must be"),
        ({"labels": np.array(["a", "b", "c"])}, "labels must be"),
        ({"labels": np.array([0, 1])}, "3 images but 2 labels"),
        ({"labels": np.full((3, 2), np.nan)}, "labels"),
        ({"classes": np.array(["a", "b"])}, r"labels must lie in 0 \.\.\. 1"),
        ({"classes": np.array(["a", "b", "a"])}, "same name"),
        ({"classes": np.array(["a", "b\n", "c"])}, r"'b\\n' is not a name for a class"),
        ({"classes": np.array([1, 2, 3])}, "classes must be names"),
        ({"step_size": np.array([1.0, 2.0])}, "step_size must be one number"),
        ({"step_size": np.array("fast")}, "step_size must be one number"),
        ({"step_size": np.array(-1.0)}, "not a learning rate"),
        ({"ddbench": np.array("{")}, "not a distilled set of ddbench"),
        ({"ddbench": np.array(1)}, "must be a text"),
        ({"ddbench": np.array("[" * 100_000)}, "not a distilled set of ddbench"),
        ({"ddbench": np.array('{"format": 9}')}, "use a newer one"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, arrays, says):
    with pytest.raises(DataError, match=says) as caught:
        read(written(tmp_path, **arrays))
    assert "set.npz" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_float_pixels_must_be_pixels(tmp_path):
    with pytest.raises(DataError, match=r"pixels in \[0, 1\], but go from 0 to 2"):
        read(written(tmp_path, images=2 * IMAGES), format="npz[pixels=true]")
