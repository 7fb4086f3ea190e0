"""Files that were made to harm: each is one line and exit status 2, and nothing is run, left or taken up by it."""

import io
import json
import os
import pickle
import resource
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from studies import ddbench
from test_run import assert_refused

HUGE = 10**10


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def pair(images=None, labels=None):
    return [torch.zeros(3, 1, 16, 16) if images is None else images, torch.arange(3) if labels is None else labels]


def vico(path, **how):
    torch.save({"data": [pair()], "accs_all_exps": {}}, path, **how)
    return path


def patched(path, wanted, number):
    """The file with the one-byte number ``wanted`` in its pickle made ``number``, where a size stands."""
    data = path.read_bytes()
    old, new = b"K" + bytes([wanted]), b"\x8a\x06" + number.to_bytes(6, "little")
    if not zipfile.is_zipfile(path):
        path.write_bytes(data.replace(old, new, 1))
        return path
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new, 1) if name.endswith("data.pkl") else content)
    return path


def repacked(path, name, write):
    """The archive with one member that ``write`` makes."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, write() if member == name else content)
    return path


def npy_header(shape, dtype="<f4", version=(1, 0)):
    """The beginning of an array whose numbers never come."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def npz(path, **arrays):
    np.savez(path, **{"images": np.zeros((3, 1, 16, 16), np.float32), "labels": np.arange(3), **arrays})
    return path


def safetensors(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


METADATA = {
    "ddbench": json.dumps({"format": 1, "classes": [], "preprocessing": "n", "step_size": None, "provenance": {}})
}


def sparse_safetensors(path, count=HUGE):
    """Zeros that take no room on disk."""
    tensors = {
        "images": {"dtype": "F32", "shape": [count // 256, 1, 16, 16], "data_offsets": [0, 4 * count]},
        "labels": {"dtype": "I64", "shape": [3], "data_offsets": [4 * count, 4 * count + 24]},
    }
    safetensors(path, {"__metadata__": METADATA, **tensors})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 4 * count + 24)
    return path


def sparse(count):
    """A tensor of one number in so many."""
    return torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), (count, 1), check_invariants=True)


def bomb(folder):
    (folder / "set" / "a").mkdir(parents=True)
    Image.new("1", (20_000, 20_000)).save(folder / "set" / "a" / "x.png")
    return folder / "set"


def pipe(path):
    os.mkfifo(path)
    return path


def written(path, content):
    path.write_bytes(content)
    return path


def saved(path, content, **how):
    torch.save(content, path, **how)
    return path


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])
    return path


FILES = {
    "a pickle that runs code": lambda d: (saved(d / "x.pt", {"data": [Evil(d / "trace")]}), "could run code"),
    "an old pickle that runs code": lambda d: (
        saved(d / "x.pt", [Evil(d / "trace")], _use_new_zipfile_serialization=False),
        "could run code",
    ),
    "a bare pickle": lambda d: (written(d / "x.pt", pickle.dumps(Evil(d / "trace"))), "cannot be read"),
    "code in the labels of MTT": lambda d: (
        saved(d / "images_best.pt", torch.zeros(3, 1, 16, 16)).with_name(
            saved(d / "labels_best.pt", [Evil(d / "trace")]).name.replace("labels", "images")
        ),
        "could run code",
    ),
    "objects in npz": lambda d: (npz(d / "x.npz", images=np.array([Evil(d / "trace")])), "could run code"),
    "objects that nobody asked for": lambda d: (npz(d / "x.npz", more=np.array([Evil(d / "trace")])), "could run code"),
    "a truncated pt": lambda d: (truncated(vico(d / "x.pt")), "x.pt"),
    "a truncated old pt": lambda d: (truncated(vico(d / "x.pt", _use_new_zipfile_serialization=False)), "x.pt"),
    "a truncated npz": lambda d: (truncated(npz(d / "x.npz")), "cannot be read as plain arrays"),
    "an empty npz": lambda d: (written(d / "x.npz", b""), "cannot be read as plain arrays"),
    "a compressed pt": lambda d: (repacked(vico(d / "x.pt"), "", None), "torch.save does not write"),
    "a storage of ten billion": lambda d: (patched(vico(d / "x.pt"), 3, HUGE), "x.pt"),
    "an old storage of ten billion": lambda d: (
        patched(vico(d / "x.pt", _use_new_zipfile_serialization=False), 3, HUGE),
        "promises more numbers",
    ),
    "ten billion of one number": lambda d: (
        saved(d / "x.pt", {"data": [pair(torch.zeros(1).expand(HUGE // 256, 1, 16, 16))]}),
        "promises 10,000,000,003 numbers",
    ),
    "a million of one number": lambda d: (
        saved(d / "x.pt", {"data": [pair(torch.zeros(1).expand(4096, 1, 16, 16))]}),
        "promises a tensor of (4096, 1, 16, 16)",
    ),
    "a sparse tensor of ten billion": lambda d: (
        saved(d / "x.pt", {"data": [pair(sparse(HUGE))]}),
        "x.pt",
    ),
    "a tensor without values": lambda d: (
        saved(d / "x.pt", {"data": [pair(torch.zeros(HUGE // 256, 1, 16, 16, device="meta"))]}),
        "x.pt",
    ),
    "an array of ten billion": lambda d: (
        repacked(npz(d / "x.npz"), "images.npy", lambda: npy_header((HUGE // 256, 1, 16, 16))),
        "promises 10,000,000,000 numbers",
    ),
    "an array of negative size": lambda d: (
        repacked(npz(d / "x.npz"), "images.npy", lambda: npy_header((-3, 1, 16, 16))),
        "negative",
    ),
    "texts of ten billion letters": lambda d: (
        repacked(npz(d / "x.npz", classes=np.array(["a"])), "classes.npy", lambda: npy_header((1,), f"<U{2**28}")),
        "x.npz promises more in classes.npy than it holds",
    ),
    "an array that is not all there": lambda d: (
        repacked(npz(d / "x.npz"), "images.npy", lambda: npy_header((3, 1, 16, 16))),
        "promises more in images.npy than it holds",
    ),
    "zeros that unpack to much": lambda d: (
        repacked(
            npz(d / "x.npz"), "images.npy", lambda: npy_header((2**18 + 1, 1, 16, 16)) + bytes(4 * 2**8 * (2**18 + 1))
        ),
        "that is not a distilled set",
    ),
    "a header of ten billion bytes": lambda d: (
        written(d / "x.safetensors", struct.pack("<Q", HUGE) + b"{}"),
        "not a distilled set",
    ),
    "a tensor of ten billion": lambda d: (
        safetensors(
            d / "x.safetensors",
            {"__metadata__": METADATA, "images": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}},
        ),
        "not a distilled set",
    ),
    "ten billion zeros in a sparse file": lambda d: (
        sparse_safetensors(d / "x.safetensors"),
        "x.safetensors is 40,000,000,344 bytes",
    ),
    "two billion zeros in a sparse file": lambda d: (
        sparse_safetensors(d / "x.safetensors", 2**31),
        "promises 2,147,483,651 numbers",
    ),
    "NaN in pt": lambda d: (saved(d / "x.pt", {"data": [pair(torch.full((3, 1, 16, 16), torch.nan))]}), "NaN"),
    "NaN in npz": lambda d: (npz(d / "x.npz", images=np.full((3, 1, 16, 16), np.nan, np.float32)), "NaN"),
    "labels beyond the classes": lambda d: (
        npz(d / "x.npz", labels=np.array([0, 1, 10**9])),
        "labels must lie in 0 ... 2",
    ),
    "labels below": lambda d: (saved(d / "x.pt", {"data": [pair(labels=torch.tensor([-1, 0, 1]))]}), "from 0"),
    "a picture of a gigapixel": lambda d: (bomb(d), "decompression bomb"),
    "a pipe": lambda d: (pipe(d / "x.safetensors"), "a pipe"),
    "a pipe called npz": lambda d: (pipe(d / "x.npz"), "a pipe"),
    "a device": lambda d: ("/dev/zero", "a device"),
    "a link to a device": lambda d: ((d / "x.pt").symlink_to("/dev/zero") or d / "x.pt", "a device"),
    "labels that are a link out": lambda d: (
        (
            saved(d / "images_best.pt", torch.zeros(3, 1, 16, 16)),
            (d / "labels_best.pt").symlink_to("/etc/passwd"),
        )[0],
        "a link to another folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_one_line(tmp_path, data, name):
    folder, said = tmp_path / "made", tmp_path / "out"
    folder.mkdir()
    path, says = FILES[name](folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dataset = f"arrays[path={data},normalize=mnist]"
    assert_refused(ddbench("convert", path, said / "x.safetensors", "--dataset", dataset), says)
    assert_refused(ddbench("eval", path, "--dataset", dataset, "--store", said), says)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kilobytes"
    assert not said.exists()
    assert not (folder / "trace").exists()
