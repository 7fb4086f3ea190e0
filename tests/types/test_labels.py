"""Labels that are not class weights are refused wherever they enter, with what to do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from harness import DataError, DistilledSet, Normalize, load_distilled, save_distilled
from harness.types.data.labels import TOLERANCE

CLASSES = ("a", "b", "c", "d")
PREPROCESSING = Normalize("n", torch.zeros(1), torch.ones(1))
IMAGES = torch.linspace(0, 1, 4 * 16).reshape(4, 1, 4, 4)
ONE_HOT = torch.eye(4)
METADATA = '{"format": 1, "classes": ["a", "b", "c", "d"], "preprocessing": "n", "step_size": null, "provenance": {}}'


def built(folder, labels):
    return DistilledSet(IMAGES, labels, CLASSES, PREPROCESSING)


def npz(folder, labels):
    np.savez(folder / "set.npz", images=IMAGES.numpy(), labels=labels.numpy())
    return folder / "set.npz"


def npz_of_ours(folder, labels):
    save_distilled(built(folder, ONE_HOT), folder / "set.npz")
    arrays = dict(np.load(folder / "set.npz"))
    np.savez(folder / "set.npz", **{**arrays, "labels": labels.numpy(), "ddbench": np.array(METADATA)})
    return folder / "set.npz"


def ours(folder, labels):
    save_distilled(built(folder, ONE_HOT), folder / "set.safetensors")
    tensors = load_file(folder / "set.safetensors")
    save_file({**tensors, "labels": labels}, folder / "set.safetensors", {"ddbench": METADATA})
    return folder / "set.safetensors"


def mtt(folder, labels):
    torch.save(IMAGES, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    return folder


def vico(folder, labels):
    torch.save({"data": [[IMAGES, labels]], "accs_all_exps": {}}, folder / "res.pt")
    return folder / "res.pt"


def idc(folder, labels):
    torch.save([IMAGES, labels], folder / "data.pt")
    return folder


DOORS = {"DistilledSet": built, "npz": npz, "our npz": npz_of_ours, "ours": ours, "mtt": mtt, "vico": vico, "idc": idc}


def entered(door, folder, labels):
    """The set that these labels become when they enter by a door."""
    entry = DOORS[door](folder, labels)
    how = {"format": "idc[factor=2]"} if door == "idc" else {}
    return (
        entry if door == "DistilledSet" else load_distilled(entry, preprocessing=PREPROCESSING, classes=CLASSES, **how)
    )


LOGITS = torch.tensor([[9.0, -3, 0, 1]] * 4)
REFUSED = {
    "centred": (ONE_HOT - 0.25, r"values go from -0\.25 to 0\.75 and rows sum to 0 \.\.\. 0,.*add 1/4 to each"),
    "logits": (
        LOGITS,
        r"values go from -3 to 9 and rows sum to 7 \.\.\. 7,.*if they are logits, .*(softmax|ddranking)",
    ),
    "logarithms": (torch.log_softmax(LOGITS, 1), r"not class weights: .*logarithms of weights: give labels\.exp\(\)"),
    "counts": (2 * ONE_HOT, r"rows sum to 2 \.\.\. 2,.*divide each row by its sum"),
    "no weight": (ONE_HOT * torch.tensor([[1.0], [1], [0], [1]]), "row 2 is all zeros"),
    "one row of many": (ONE_HOT * torch.tensor([[1.0], [1], [1], [0.9]]), r"rows sum to 0\.9 \.\.\. 1,"),
    "just negative": (ONE_HOT + torch.tensor([1e-3, -1e-3, 0, 0]), "not class weights: values go from -0.001 to"),
    "halves": ((2 * ONE_HOT).half(), "rows sum to 2"),
    "NaN": (ONE_HOT / torch.tensor([1.0, 0, 1, 1]), "NaN or infinite"),
    "infinite": (ONE_HOT + torch.tensor([torch.inf, 0, 0, 0]), "NaN or infinite"),
    "too few columns": (torch.full((4, 3), 1 / 3), "weights for 3 classes, but there are 4 classes"),
    "too many columns": (torch.full((4, 8), 1 / 8), "weights for 8 classes"),
    "whole one-hot": (ONE_HOT.long(), r"not int64 \(4, 4\): give weights as floats .*argmax"),
    "float indices": (torch.arange(4).float(), r"not float32 \(4,\): give class indices as whole numbers"),
    "a column of indices": (torch.arange(4)[:, None], r"not int64 \(4, 1\)"),
    "below": (torch.tensor([0, -1, 2, 3]), r"labels go from -1 to 3.*class indices from 0"),
    "counted from one": (
        torch.tensor([1, 2, 3, 4]),
        r"labels must lie in 0 \.\.\. 3, but go from 1 to 4: .*subtract 1",
    ),
    "beyond": (torch.tensor([0, 2, 3, 9]), r"labels must lie in 0 \.\.\. 3, but go from 0 to 9"),
    "too few": (torch.arange(3), "4 images but 3 labels"),
    "too few weights": (ONE_HOT[:3], "4 images but 3 labels"),
    "one number": (torch.tensor(1), r"labels must be integers \(n,\)"),
    "three dimensions": (torch.full((4, 4, 1), 0.25), r"labels must be integers \(n,\)"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", REFUSED)
def test_labels_that_no_student_can_learn_are_refused_at_every_door(tmp_path, door, name):
    labels, says = REFUSED[name]
    with pytest.raises(DataError, match=says) as caught:
        entered(door, tmp_path, labels)
    assert len(str(caught.value).splitlines()) == 1


SOFT = torch.softmax(torch.linspace(-3, 3, 16).reshape(4, 4).sin() * 4, 1)
TAKEN = {
    "weights": SOFT,
    "halves": SOFT.half(),
    "doubles": SOFT.double(),
    "one-hot floats": ONE_HOT,
    "nearly": SOFT * (1 + TOLERANCE / 2),
    "indices": torch.arange(4),
    "short indices": torch.arange(4).int(),
    "bytes": torch.arange(4).byte(),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", TAKEN)
def test_labels_that_can_be_learned_are_taken_at_every_door(tmp_path, door, name):
    labels = TAKEN[name]
    entry = entered(door, tmp_path, labels)
    assert torch.equal(entry.labels, labels.to(entry.labels.dtype))
    assert entry.label_kind == ("soft" if labels.is_floating_point() else "hard")


@pytest.mark.parametrize("labels", [torch.tensor([0j, 1, 2, 3]), torch.tensor([True, False, True, True])])
@pytest.mark.parametrize("door", ["DistilledSet", "mtt", "vico"])
def test_labels_of_other_types_are_refused(tmp_path, door, labels):
    with pytest.raises(DataError, match=r"labels must be integers \(n,\)"):
        entered(door, tmp_path, labels)


@pytest.mark.parametrize("door", ["DistilledSet", "ours", "vico"])
def test_narrow_numbers_are_taken_or_refused(tmp_path, door):
    assert entered(door, tmp_path, torch.arange(4).to(torch.uint16)).labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="not float8_e5m2"):
        entered(door, tmp_path, ONE_HOT.to(torch.float8_e5m2))


@given(st.integers(1, 2000), st.sampled_from([torch.float16, torch.bfloat16, torch.float32]), st.floats(0, 1))
def test_rounded_weights_are_weights_still(classes, dtype, smooth):
    labels = torch.full((2, classes), smooth / classes)
    labels[:, 0] += 1 - smooth
    images, names = torch.zeros(2, 1, 2, 2), tuple(map(str, range(classes)))
    assert DistilledSet(images, labels.to(dtype), names, PREPROCESSING).label_kind == "soft"


def test_images_of_eight_bit_floats_are_refused(tmp_path):
    narrow = IMAGES.to(torch.float8_e4m3fn)
    with pytest.raises(DataError, match="images must be floats, not float8_e4m3fn"):
        DistilledSet(narrow, torch.arange(4), CLASSES, PREPROCESSING)
    path = ours(tmp_path, torch.arange(4))
    save_file({**load_file(path), "images": narrow}, path, {"ddbench": METADATA})
    with pytest.raises(DataError, match="images must be floats"):
        load_distilled(path)


def test_ranked_labels_that_are_weights_already_are_named(tmp_path):
    from harness.plugins.set_formats import read_content
    from harness.types.formats import Reading

    torch.save(IMAGES, tmp_path / "images.pt")
    torch.save(SOFT, tmp_path / "labels.pt")
    (note,) = read_content(tmp_path, Reading()).notes
    assert "but they are class weights already: to take them as they are, say --from mtt" in note
    taken = load_distilled(tmp_path / "images.pt", format="mtt", preprocessing=PREPROCESSING, classes=CLASSES)
    assert torch.equal(taken.labels, SOFT)
    torch.save(LOGITS, tmp_path / "labels.pt")
    (note,) = read_content(tmp_path, Reading()).notes
    assert "already" not in note
