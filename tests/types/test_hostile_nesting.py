"""Files whose parts contain themselves, or very many of them: read or refused, in bounded time and memory."""

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

from harness import DataError, DistilledSet, Normalize, load_distilled, save_distilled
from harness.types.formats.pickled import read_pickled, tensors_in

PREPROCESSING = Normalize("n", torch.zeros(1), torch.ones(1))
PAIR = [torch.zeros(3, 1, 4, 4), torch.arange(3)]
HEAD = b"\x80\x02"
DEEP = 50_000


def saved(path, content, old=False):
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def zipped(path, pickled):
    """A file as torch.save makes it, with a pickle of one's own."""
    torch.save({"x": torch.zeros(1)}, path)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    return path


def containing_itself(kind):
    whole = {"data": [PAIR]} if kind is dict else [PAIR[0]]
    if kind is dict:
        whole["self"] = whole
    else:
        whole.append(whole)
    return whole


def shared(levels, kind=list):
    """One object that is reached in 2**levels ways."""
    part = kind()
    for _ in range(levels):
        part = kind((part, part))
    return part


def nested(opcode, depth):
    """A pickle that nests ``depth`` deep."""
    return {"list": b"]" * depth + b"a" * (depth - 1), "tuple": b")" + b"\x85" * depth}[opcode]


def key_of(tuples):
    """A dictionary with one key."""
    return HEAD + b"}" + tuples + b"K\x01s."


def doubled(levels):
    return b")" + b"".join(b"q\x01h\x01\x86" for _ in range(levels))


def call(module, name, arguments):
    return HEAD + f"c{module}\n{name}\n".encode() + arguments + b"R."


HUGE = b"\x8a\x05" + (10**11).to_bytes(5, "little")

PICKLES = {
    "a list that contains itself": lambda d: saved(d / "x.pt", containing_itself(list)),
    "a dictionary that contains itself": lambda d: saved(d / "x.pt", {"x": containing_itself(dict)}),
    "an old list that contains itself": lambda d: saved(d / "x.pt", containing_itself(list), old=True),
    "a list that is met 2**40 times": lambda d: saved(d / "x.pt", shared(40)),
    "a tuple that is met 2**40 times": lambda d: saved(d / "x.pt", [shared(40, tuple)]),
    "a list nested 50,000 deep": lambda d: zipped(d / "x.pt", HEAD + nested("list", DEEP) + b"."),
    "a tuple nested 50,000 deep": lambda d: zipped(d / "x.pt", HEAD + nested("tuple", DEEP) + b"."),
    "a key nested 50,000 deep": lambda d: zipped(d / "x.pt", key_of(nested("tuple", DEEP))),
    "a key that is met 2**40 times": lambda d: zipped(d / "x.pt", key_of(doubled(40))),
    "a pickle of two million steps": lambda d: zipped(d / "x.pt", HEAD + b"]" + b"]a" * (5 * DEEP) + b"."),
    "a pickle of 100 MB": lambda d: zipped(
        d / "x.pt", HEAD + b"X" + struct.pack("<I", 10**8) + bytes(10**8) + b"."
    ),
    "ten billion bytes": lambda d: zipped(d / "x.pt", call("builtins", "bytearray", HUGE + b"\x85")),
    "ten billion numbers of a tensor": lambda d: zipped(d / "x.pt", call("torch", "FloatTensor", HUGE + b"\x85")),
    "ten billion bytes of a storage": lambda d: zipped(
        d / "x.pt", call("torch.storage", "UntypedStorage", HUGE + b"\x85")
    ),
    "two billion bytes of a scalar": lambda d: zipped(
        d / "x.pt",
        HEAD + b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x0b\0\0\0V2000000000\x85R\x85R.",
    ),
    "a slow encoding": lambda d: zipped(
        d / "x.pt", call("_codecs", "encode", b"X\x01\0\0\0aX\x04\0\0\0idna\x86")
    ),
    "an empty stack": lambda d: zipped(d / "x.pt", HEAD + b"R."),
    "a mark that is not there": lambda d: zipped(d / "x.pt", HEAD + b"t."),
    "a memo that is not there": lambda d: zipped(d / "x.pt", HEAD + b"h\x07."),
    "a sparse tensor": lambda d: saved(d / "x.pt", [torch.eye(3).to_sparse(), 1]),
    "an archive of a million members": lambda d: members(d / "x.pt"),
}  # fmt: skip


def members(path, count=10**6):
    """An archive whose list of members is long, as its last record says."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    listed = entry * count
    path.write_bytes(b"PK\3\4" + listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(listed), 4, 0))
    return path


def said_of(path):
    """What is said of a file, with the memory that it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as caught:
        load_distilled(path, preprocessing=PREPROCESSING)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert len(said) < 300
    assert "x." in said
    return said


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_pickles_are_refused_in_a_line(tmp_path, name):
    said_of(PICKLES[name](tmp_path))


def test_a_set_beside_itself_is_read(tmp_path):
    """What is walked once can be used, whatever else lies in the file."""
    content = containing_itself(dict)
    content["again"] = shared(40)
    path = saved(tmp_path / "x.pt", content)
    assert len(load_distilled(path, preprocessing=PREPROCESSING).images) == 3


def test_each_tensor_is_met_once():
    both = [PAIR, tuple(PAIR), {"x": PAIR[0], "y": {"z": PAIR}}]
    both.append(both)
    assert sorted(tensor.ndim for tensor in tensors_in(both)) == [1, 4]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        {"data": [PAIR] * 3, "accs_all_exps": {"ConvNet": [np.float64(0.5), np.float32(0.25), 1]}, "more": {"a": (1,)}},
        [torch.nn.Parameter(torch.zeros(2)), torch.zeros(3).half(), torch.zeros(1, dtype=torch.bfloat16), True, None],
        {("a", 1): torch.Size([1, 2]), 3: 2.5, "text": "é" * 300, "device": torch.device("cpu"), "big": 2**31},
        [torch.zeros(4, dtype=dtype) for dtype in (torch.int64, torch.uint8, torch.bool, torch.float64)],
    ],
)  # fmt: skip
def test_what_torch_saves_of_plain_data_is_read(tmp_path, content, old):
    path = saved(tmp_path / "x.pt", content, old)
    if old and isinstance(content, dict) and "big" in content:
        content.pop("big")  # of an old file, no number may be larger than the file: storages grow to it
        path = saved(path, content, old)
    read = read_pickled(path)
    assert type(read) is type(content)
    assert len(read) == len(content)


def nested_json(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


def safetensors(path, text, header=None):
    tensors = {"images": {"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [0, 4]}}
    whole = header or json.dumps({"__metadata__": {"ddbench": text}, **tensors}).encode()
    path.write_bytes(struct.pack("<Q", len(whole)) + whole + bytes(4))
    return path


def npz(path, **arrays):
    np.savez(path, **{"images": np.zeros((3, 1, 4, 4), np.float32), "labels": np.arange(3), **arrays})
    return path


def with_member(path, name, content, how=zipfile.ZIP_DEFLATED):
    npz(path)
    with zipfile.ZipFile(path) as archive:
        rest = {member: archive.read(member) for member in archive.namelist() if member != name}
    with zipfile.ZipFile(path, "w", how) as archive:
        for member, data in {**rest, name: content}.items():
            archive.writestr(member, data)
    return path


def metadata(**changes):
    whole = {"format": 1, "classes": ["a"], "preprocessing": "n", "step_size": None, "provenance": {}}
    return json.dumps({**whole, **changes})


def pictures(path, text):
    path.mkdir()
    (path / "ddbench.json").write_text(text)
    (path / "a").mkdir()
    return path


OTHERS = {
    "JSON nested 100,000 deep in npz": lambda d: npz(d / "x.npz", ddbench=np.array(nested_json(100_000))),
    "objects nested 100,000 deep": lambda d: npz(d / "x.npz", ddbench=np.array(nested_json(100_000, '{"a":', "}"))),
    "JSON nested 100,000 deep in safetensors": lambda d: safetensors(d / "x.safetensors", nested_json(100_000)),
    "a header nested 100,000 deep": lambda d: safetensors(
        d / "x.safetensors", "", b'{"__metadata__":' + nested_json(100_000).encode() + b"}"
    ),
    "a header of 50 MB": lambda d: safetensors(d / "x.safetensors", "b" * 50_000_000),
    "JSON nested 100,000 deep beside pictures": lambda d: pictures(d / "x.d", nested_json(100_000)),
    "provenance nested 300 deep": lambda d: npz(
        d / "x.npz", ddbench=np.array(metadata(provenance={"a": json.loads(nested_json(300))}))
    ),
    "ten million letters of JSON": lambda d: npz(d / "x.npz", ddbench=np.array("[" + "[]," * 3_000_000 + "[]]")),
    "a step size beyond all floats": lambda d: npz(d / "x.npz", ddbench=np.array(metadata(step_size=10**400))),
    "a format beyond all numbers": lambda d: npz(d / "x.npz", ddbench=np.array(metadata(format=10**4000))),
    "a format that is no number": lambda d: npz(d / "x.npz", ddbench=np.array(metadata(format=0.5))),
    "objects in npz": lambda d: npz(d / "x.npz", labels=np.array([[1], [2, 3], None], dtype=object)),
    "a header of four billion zeros": lambda d: with_member(
        d / "x.npz", "more.npy", b"\x93NUMPY\x02\x00" + b"\xff" * 4 + bytes(100_000_000)
    ),
    "lzma": lambda d: with_member(d / "x.npz", "more.npy", bytes(100), zipfile.ZIP_LZMA),
    "a nested dtype": lambda d: npz(d / "x.npz", labels=np.zeros(3, dtype=[("a", "f4", (1000,))])),
    "a shape of 10**30": lambda d: with_member(d / "x.npz", "images.npy", npy((10**30, 1, 4, 4))),
    "a shape of nothing by 10**18": lambda d: with_member(d / "x.npz", "images.npy", npy((0, 10**18, 4, 4))),
    "no array": lambda d: with_member(d / "x.npz", "readme.txt", b"hello"),
    "a million members": lambda d: members(d / "x.npz"),
}  # fmt: skip


def npy(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("name", OTHERS)
def test_other_hostile_files_are_refused_in_a_line(tmp_path, name):
    said_of(OTHERS[name](tmp_path))


@pytest.mark.parametrize("name", ["x.pt", "x.npz", "x.safetensors", "images_best.pt", "data.pt"])
@pytest.mark.parametrize("what", ["a pipe", "a folder", "a device", "a loop of links"])
def test_only_plain_files_are_read(tmp_path, name, what):
    path = tmp_path / name
    {
        "a pipe": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a loop of links": lambda: path.symlink_to(path),
    }[what]()
    for format in (None, "npz", "safetensors", "vico", "mtt", "idc[factor=1]"):
        with pytest.raises(DataError) as caught:
            load_distilled(path, preprocessing=PREPROCESSING, format=format)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x"])
def test_what_could_not_be_read_again_is_not_written(tmp_path, name):
    for provenance, says in (
        ({"log": "x" * 5_000_000}, "letters"),
        ({"deep": json.loads(nested_json(300))}, "nested more than 100 deep"),
    ):
        distilled = DistilledSet(*PAIR, ("a", "b", "c"), PREPROCESSING, provenance=provenance)
        with pytest.raises(DataError, match=says):
            save_distilled(distilled, tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("provenance", [{1: 2, "a": 3}, {"a": object()}, {"a": {1, 2}}])
def test_provenance_that_is_no_json_is_refused(provenance):
    with pytest.raises(DataError, match="cannot be written as JSON"):
        DistilledSet(*PAIR, ("a", "b", "c"), PREPROCESSING, provenance=provenance)


def test_what_a_pickle_asks_for_is_named_in_one_line(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"\x80\x02cos\x0b\x1b[2J\nsystem\n)R.")
    assert r"it asks for os\x0b\x1b[2J.system" in said_of(tmp_path / "x.pt")


def test_pickles_of_a_newer_protocol_are_refused(tmp_path):
    torch.save({"data": [PAIR]}, tmp_path / "x.pt", pickle_protocol=4)
    assert "cannot be read" in said_of(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(pickle.dumps([1]))
    assert "cannot be read" in said_of(tmp_path / "x.pt")
