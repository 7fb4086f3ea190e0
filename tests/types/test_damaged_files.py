"""Whatever is wrong with the bytes of a file, it is read or refused in one line, and never anything else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import DataError, DistilledSet, Normalize, load_distilled, open_encoding, save_distilled

PREPROCESSING = Normalize("n", torch.full((1,), 0.4), torch.full((1,), 0.2))
MADE = DistilledSet(
    torch.linspace(0, 1, 3 * 16).reshape(3, 1, 4, 4), torch.arange(3), ("a", "b", "c"), PREPROCESSING, 0.01, {"x": [1]}
)
PACKING = open_encoding("multi-formation[factor=2]", MADE.images.shape[1:])
PACKED = DistilledSet(
    MADE.images,
    MADE.labels,
    MADE.classes,
    PREPROCESSING,
    encoding=open_encoding("multi-formation[factor=2]", MADE.images.shape[1:]),
)


def old(path):
    torch.save({"data": [[MADE.images, MADE.labels]]}, path, _use_new_zipfile_serialization=False)


WRITE = {
    "own.safetensors": lambda path: save_distilled(PACKED, path),
    "own.npz": lambda path: save_distilled(MADE, path),
    "vico.pt": lambda path: save_distilled(MADE, path),
    "old.pt": old,
    "images_best.pt": lambda path: torch.save(MADE.images, path),
    "data.pt": lambda path: torch.save([MADE.images, MADE.labels], path),
    "pictures": lambda path: save_distilled(MADE, path),
}
PARTS = {"pictures": ["a/000.png", "ddbench.json"]}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound file of each format."""
    folder = tmp_path_factory.mktemp("sound")
    for name, write in WRITE.items():
        write(folder / name)
    torch.save(MADE.labels, folder / "labels_best.pt")
    return folder


def read(path):
    how = {"format": "idc[factor=2]"} if path.name == "data.pt" else {}
    return load_distilled(path, preprocessing=PREPROCESSING, classes=MADE.classes, **how)


@pytest.mark.parametrize("name", WRITE)
def test_the_files_that_are_spoilt_are_sound(sound, name):
    assert len(read(sound / name).images) == 3


@pytest.mark.parametrize(("name", "part"), [(name, part) for name in WRITE for part in PARTS.get(name, [""])])
@given(st.data())
def test_spoilt_bytes_are_read_or_refused(sound, name, part, data):
    path = sound / name / part
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3), "changes")):
        at = data.draw(st.integers(0, len(spoilt) - 1), "place")
        spoilt[at] = data.draw(st.integers(0, 255), "byte")
    end = data.draw(st.none() | st.integers(0, len(spoilt)), "end")
    path.write_bytes(bytes(spoilt[:end]))
    said = ""
    try:
        assert read(sound / name).images.isfinite().all()
    except DataError as error:
        said = str(error)
    finally:
        path.write_bytes(whole)
    assert len(said.splitlines()) <= 1
