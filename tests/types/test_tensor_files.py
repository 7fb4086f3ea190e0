"""MTT's, DD-Ranking's and IDC's files, and IDC's packing."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness import DataError, DistilledSet, Normalize, UsageError, load_distilled, open_encoding, save_distilled
from harness.types.formats.metadata import metadata_of
from harness.types.formats.own import tensors_of

CLASSES = ("a", "b", "c")
IMAGES = torch.linspace(-2, 2, 3 * 3 * 4 * 4).reshape(3, 3, 4, 4)
PREPROCESSING = Normalize("n", torch.full((3,), 0.4), torch.full((3,), 0.2))


def read(path, **how):
    return load_distilled(path, **{"preprocessing": PREPROCESSING, "classes": CLASSES, **how})


def written(folder, **tensors):
    folder.mkdir(exist_ok=True)
    for name, value in tensors.items():
        torch.save(value, folder / f"{name}.pt")
    return folder


# --- MTT --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["", "images_best.pt"])
def test_mtt_is_read_by_its_folder_or_its_images(tmp_path, file):
    distilled = read(written(tmp_path, images_best=IMAGES, labels_best=torch.tensor([0, 1, 2])) / file)
    assert torch.equal(distilled.images, IMAGES)
    assert distilled.labels.tolist() == [0, 1, 2]
    assert (distilled.classes, distilled.step_size, distilled.label_kind) == (CLASSES, None, "hard")
    assert distilled.provenance == {"file": "images_best.pt", "format": "mtt"}


def test_a_snapshot_takes_the_labels_of_its_number(tmp_path):
    folder = written(tmp_path, images_500=IMAGES, labels_500=torch.tensor([2, 1, 0]), labels_best=torch.zeros(3).long())
    assert read(folder / "images_500.pt").labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize("rate", [torch.tensor(0.02), torch.tensor([0.02]), 0.02])
def test_a_step_size_beside_it_is_taken(tmp_path, rate):
    folder = written(tmp_path, images_best=IMAGES, labels_best=torch.arange(3), lr_best=rate)
    assert read(folder).step_size == pytest.approx(0.02)
    with pytest.raises(DataError, match=r"step size is 0\.02, as the file says: leave out --step-size"):
        read(folder, step_size=0.1)


def test_a_step_size_can_be_given(tmp_path):
    folder = written(tmp_path, images_best=IMAGES, labels_best=torch.arange(3))
    assert read(folder, step_size=0.0123).step_size == 0.0123
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(DataError, match="not a learning rate"):
            read(folder, step_size=rate)


def test_weights_are_labels(tmp_path):
    weights = torch.softmax(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), 1)
    distilled = read(written(tmp_path, images_best=IMAGES, labels_best=weights))
    assert torch.equal(distilled.labels, weights)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"labels_best": None}, r"needs its labels beside it, in labels_best\.pt"),
        ({"labels_best": torch.randn(3, 3)}, "not class weights.*if they are logits, say --from ddranking"),
        ({"labels_best": torch.ones(3, 3)}, "not class weights"),
        ({"labels_best": torch.tensor([0, 1, 3])}, r"labels must lie in 0 \.\.\. 2"),
        ({"labels_best": torch.tensor([0, -1, 2])}, "class indices from 0"),
        ({"labels_best": torch.arange(2)}, "3 images but 2 labels"),
        ({"labels_best": torch.zeros(3)}, "holds no labels"),
        ({"labels_best": [0, 1, 2]}, "holds no labels"),
        ({"labels_best": torch.tensor([0j, 1, 2])}, "holds no labels"),
        ({"images_best": IMAGES / 0}, "NaN"),
        ({"images_best": IMAGES[0]}, "not a tensor of images"),
        ({"images_best": (IMAGES > 0).byte()}, "not a tensor of images"),
        ({"images_best": IMAGES[:, :1]}, "preprocessing 'n' does not fit"),
        ({"lr_best": torch.zeros(2)}, "holds no step size"),
        ({"lr_best": "fast"}, "holds no step size"),
        ({"lr_best": True}, "holds no step size"),
        ({"lr_best": float("nan")}, "not a learning rate"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, tensors, says):
    whole = {"images_best": IMAGES, "labels_best": torch.arange(3), **tensors}
    folder = written(tmp_path, **{name: value for name, value in whole.items() if value is not None})
    with pytest.raises(DataError, match=says) as caught:
        read(folder)
    assert "_best.pt" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_labels_without_names_must_be_few(tmp_path):
    folder = written(tmp_path, images_best=IMAGES, labels_best=torch.tensor([0, 1, 10**9]))
    with pytest.raises(DataError, match="labels go up to 1000000000"):
        read(folder, classes=None)


@pytest.mark.parametrize("name", ["images_best.pt", "images.pt", "data.pt"])
def test_a_link_out_of_a_folder_is_not_followed(tmp_path, name):
    torch.save(IMAGES, tmp_path / "other.pt")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).symlink_to(tmp_path / "other.pt")
    with pytest.raises(DataError, match="link to another folder"):
        read(tmp_path / "set")


@pytest.mark.parametrize("format", ["mtt", "ddranking", "idc[factor=2]"])
def test_a_folder_without_the_file_is_refused(tmp_path, format):
    with pytest.raises(DataError, match="there is no such file"):
        read(tmp_path, format=format)


def test_a_bare_tensor_of_another_name_is_refused(tmp_path):
    torch.save(IMAGES, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x\.pt is a bare tensor: call it images_NAME\.pt"):
        read(tmp_path / "x.pt")


def test_normalisation_is_asked_for(tmp_path):
    folder = written(tmp_path, images_best=IMAGES, labels_best=torch.arange(3))
    with pytest.raises(DataError, match="does not say how its images were normalised"):
        load_distilled(folder)


# --- DD-Ranking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_logits_become_weights(tmp_path, temperature):
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    folder = written(tmp_path, images=IMAGES, labels=logits, lr=torch.tensor(0.5))
    distilled = read(folder, format=temperature and f"ddranking[temperature={temperature}]")
    exponents = np.exp(logits.double().numpy() / (temperature or 1))
    assert np.allclose(distilled.labels.numpy(), exponents / exponents.sum(1, keepdims=True), atol=1e-6)
    assert distilled.step_size == 0.5
    assert distilled.provenance["label_temperature"] == (temperature or 1)


def test_without_labels_classes_are_in_order(tmp_path):
    folder = written(tmp_path, images=torch.cat([IMAGES, IMAGES]))
    assert read(folder).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert read(folder / "images.pt").labels.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(DataError, match="6 images are not the same number for 4 classes"):
        read(folder, classes=("a", "b", "c", "d"))
    with pytest.raises(DataError, match="give classes="):
        load_distilled(folder, preprocessing=PREPROCESSING)


def test_indices_are_taken_as_they_are(tmp_path):
    assert read(written(tmp_path, images=IMAGES, labels=torch.tensor([1, 1, 0]))).labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    "format", ["ddranking[temperature=0]", "ddranking[temprature=1]", "ddrank", "mtt[x=1]", "idc["]
)
def test_formats_that_cannot_be_meant(tmp_path, format):
    with pytest.raises(UsageError, match=r"temperature|ddranking|no options|cannot be read"):
        read(written(tmp_path, images=IMAGES), format=format)


def test_these_formats_hold_one_set(tmp_path):
    with pytest.raises(DataError, match="holds one set: leave out --entry"):
        read(written(tmp_path, images=IMAGES), entry=1)


# --- IDC --------------------------------------------------------------------------------------------------------------


def decoded_by_hand(images, factor):
    """Pixel by pixel: where a pixel's centre lies in its patch, and bilinear weights of the four around it."""
    count, channels, height, width = images.shape
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    padded = np.full((count, channels, rows * factor, columns * factor), 0.5)
    padded[:, :, :height, :width] = images
    patches = []
    for i in range(factor):
        for j in range(factor):
            patch = padded[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            patches.append(enlarged(enlarged(patch, height, 2), width, 3))
    return np.concatenate(patches)


def enlarged(images, size, axis):
    old = images.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, None)
    low = np.floor(at).astype(int)
    high, weight = np.minimum(low + 1, old - 1), at - low
    shape = [1] * images.ndim
    shape[axis] = size
    return images.take(low, axis) * (1 - weight).reshape(shape) + images.take(high, axis) * weight.reshape(shape)


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (4, 9)])
def test_packed_images_are_decoded_as_the_paper_has_it(factor, size):
    images = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(0))
    decoded, labels = packing(factor, (2, *size)).decode(images, torch.tensor([2, 0, 1]))
    assert labels.tolist() == [2, 0, 1] * factor**2
    assert np.allclose(decoded.numpy(), decoded_by_hand(images.double().numpy(), factor), atol=1e-5)


def packing(factor, shape=(3, 8, 8)):
    return open_encoding(f"multi-formation[factor={factor}]", shape)


def packed(path, factor=2):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save([images, torch.arange(3).repeat_interleave(2)], path / "data.pt")
    return images, read(path, format=f"idc[factor={factor}]")


def test_packed_sets_stay_packed(tmp_path):
    images, distilled = packed(tmp_path)
    assert torch.equal(distilled.images, images)
    assert distilled.storage_floats == images.numel()
    inputs, labels = distilled.training_data()
    decoded, wanted = packing(2).decode(images, distilled.labels)
    assert torch.equal(inputs, PREPROCESSING.apply(decoded))
    assert torch.equal(labels, wanted)
    assert len(inputs) == 24
    assert distilled.statistics()["largest"] == float(inputs.abs().max())


def test_without_packing_pixels_are_normalised(tmp_path):
    images, distilled = packed(tmp_path, factor=1)
    assert distilled.encoding is None
    assert torch.equal(distilled.images, PREPROCESSING.apply(images))


@pytest.mark.parametrize("name", ["set.safetensors", "set.npz"])
def test_packed_sets_are_kept_packed(tmp_path, name):
    _, distilled = packed(tmp_path)
    assert save_distilled(distilled, tmp_path / name) == ()
    again = load_distilled(tmp_path / name)
    assert again.encoding.description() == packing(2).description()
    for ours, theirs in zip(distilled.training_data(), again.training_data(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["res.pt", "pictures"])
def test_formats_of_images_get_them_decoded(tmp_path, name):
    _, distilled = packed(tmp_path)
    lost = save_distilled(distilled, tmp_path / name)
    assert "packing by multi-formation: 24 decoded images are written" in lost
    assert len(read(tmp_path / name).images) == 24


@pytest.mark.parametrize(
    ("content", "format", "says"),
    [
        (None, None, r"does not say how many images are packed.*idc\[factor=2\]"),
        (None, "idc[factor=0]", "factor"),
        (None, "idc[factor=17]", "factor"),
        ([IMAGES, torch.arange(3)], "idc[factor=2]", r"pixels in \[0, 1\], but go from -2 to 2"),
        ([IMAGES.clamp(0, 1), torch.zeros(3)], "idc[factor=2]", "integers"),
        ([IMAGES.clamp(0, 1), torch.tensor([0, 1, 9])], "idc[factor=2]", "labels must lie"),
        ([IMAGES.clamp(0, 1)], "idc[factor=2]", r"not \[images, labels\]"),
        ([IMAGES / 0, torch.arange(3)], "idc[factor=2]", "NaN"),
    ],
)
def test_packed_files_that_cannot_be_meant(tmp_path, content, format, says):
    torch.save(content or [IMAGES.clamp(0, 1), torch.arange(3)], tmp_path / "data.pt")
    with pytest.raises((DataError, UsageError), match=says):
        read(tmp_path, format=format)


@pytest.mark.parametrize(
    "decoder",
    [
        {},
        {"name": "eval"},
        {"name": ["multi-formation"]},
        {"name": "multi-formation"},
        {"name": "multi-formation", "factor": "2"},
        {"name": "multi-formation", "factor": 10**9},
        {"name": "multi-formation", "factor": True},
        {"name": "multi-formation", "factor": 2, "more": 1},
    ],
)
def test_decoders_of_old_files_that_cannot_be_meant_are_refused(tmp_path, decoder):
    with pytest.raises(DataError):
        load_distilled(old_file(tmp_path, decoder))


def test_packed_files_of_the_format_before_are_read(tmp_path):
    read = load_distilled(old_file(tmp_path, {"name": "multi-formation", "factor": 2}))
    assert read.encoding.description() == packing(2).description()
    assert len(read.training_data()[0]) == 24


def old_file(path, decoder):
    """A packed set as the version before wrote it, with a decoder in its metadata."""
    _, distilled = packed(path)
    metadata = {**metadata_of(distilled), "format": 2, "decoder": decoder}
    metadata.pop("parametrisation")
    save_file(tensors_of(distilled), path / "old.safetensors", {"ddbench": json.dumps(metadata)})
    return path / "old.safetensors"


def test_a_set_of_one_patch_is_whole():
    distilled = DistilledSet(
        torch.rand(1, 3, 1, 1), torch.tensor([0]), ("a",), PREPROCESSING, encoding=packing(2, (3, 1, 1))
    )
    assert distilled.training_data()[0].shape == (4, 3, 1, 1)
