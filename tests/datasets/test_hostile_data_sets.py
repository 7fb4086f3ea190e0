"""Folders and files that would hang, fill the memory or count images twice: one line, and nothing is read for ever."""

import io
import os
import re
import shutil
import socket
import struct
import threading
import unicodedata
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import DataError, DDBenchError
from harness.system.memory import MemoryLimit
from harness.types.data import image_folder, images
from harness.types.data.image_folder import ImageFolder
from harness.types.data.preprocessing import Whiten


@pytest.fixture
def memory(monkeypatch):
    """Make the machine a small one."""

    def memory(size):
        monkeypatch.setattr("harness.system.memory.memory_limit", lambda: MemoryLimit(size, "all that this toy has"))

    return memory


def within_seconds(function):
    """What ``function`` raises; a hang fails the test instead of stopping all."""
    raised = []

    def run():
        try:
            function()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it hangs"
    (error,) = raised
    assert isinstance(error, DataError), repr(error)
    assert "\n" not in str(error)
    return str(error)


def pipe(folder):
    os.mkfifo(folder / "train/cat/z.png")


def device(folder):
    (folder / "train/cat/z.png").symlink_to("/dev/zero")


def unix_socket(folder):
    here = os.getcwd()
    os.chdir(folder / "train/cat")  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("z.png")
    finally:
        os.chdir(here)


def link_to_itself(folder):
    (folder / "train/cat/z.png").symlink_to("z.png")


def link_to_nothing(folder):
    (folder / "train/cat/more").symlink_to("gone")


def class_that_leads_nowhere(folder):
    for split in ("train", "test"):
        (folder / split / "wolf").symlink_to("gone")


def link_to_the_class(folder):
    (folder / "train/cat/again").symlink_to(".")


def three_links_to_the_class(folder):
    for number in range(3):
        (folder / f"train/cat/{number}").symlink_to(".")


def links_to_the_split(folder):
    for name in ("cat", "dog"):
        (folder / f"train/{name}/up").symlink_to("..")


def link_to_the_root(folder):
    (folder / "train/cat/root").symlink_to("/")


def link_to_the_other_class(folder):
    (folder / "train/cat/more").symlink_to("../dog")


def class_that_is_another(folder):
    for split in ("train", "test"):
        (folder / split / "wolf").symlink_to("dog")


def test_that_is_train(folder):
    shutil.rmtree(folder / "test")
    (folder / "test").symlink_to("train")


def two_ways_outside(folder):
    (folder.parent / "more").mkdir()
    for name in ("cat", "dog"):
        (folder / "train" / name / "more").symlink_to(folder.parent / "more")


def enormous_file(folder):
    with (folder / "train/cat/z.png").open("wb") as file:
        file.truncate(2**40)


def bomb(folder):
    Image.new("1", (10_000, 10_000)).save(folder / "train/cat/z.png")


def two_forms_of_a_name(folder):
    for form in ("NFC", "NFD"):
        shutil.copytree(folder / "train/cat", folder / "train" / unicodedata.normalize(form, "é"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (pipe, r"train/cat/z\.png is not a plain file, but a pipe"),
        (device, r"train/cat/z\.png is not a plain file, but a device"),
        (unix_socket, r"train/cat/z\.png is not a plain file, but a socket"),
        (link_to_itself, r"z\.png cannot be read: .*'z\.png' leads nowhere: delete it"),
        (link_to_nothing, r"more cannot be read: No such file or directory \('more' leads nowhere: delete it"),
        (class_that_leads_nowhere, "wolf cannot be read: .*'wolf' leads nowhere"),
        (link_to_the_class, "train/cat/again leads to the folder .*train/cat, which is read already"),
        (three_links_to_the_class, "train/cat/0 leads to the folder .*train/cat, which is read already"),
        (links_to_the_split, "train/cat/up leads to the folder .*train, which is read already"),
        (link_to_the_root, "train/cat/root leads to the folder /, which"),
        (link_to_the_other_class, "train/cat/more leads to the folder .*train/dog, which"),
        (class_that_is_another, "train/wolf leads to the folder .*train/dog, which"),
        (test_that_is_train, "test leads to the folder .*train, which"),
        (two_ways_outside, "train/dog/more leads to the folder .*train/cat/more, which"),
        (enormous_file, r"z\.png is 1,099,511,627,776 bytes, too many for an image"),
        (bomb, r"z\.png cannot be decoded.*decompression bomb"),
        (two_forms_of_a_name, "train has two folders 'é', one in composed and one in decomposed Unicode"),
    ],
)
def test_folders_that_hang_or_count_twice_are_one_line(load, folder, root, spoil, says):
    spoil(folder)
    assert re.search(says, within_seconds(lambda: load(f"folder[path={folder}]")))
    assert not (root / "decoded").exists()


def test_links_out_of_the_folder_count_once(load, folder, tmp_path):
    """Subsets of large sets are made of links, to classes and to files."""
    everything = load(f"folder[path={folder}]")
    (tmp_path / "store").mkdir()
    (folder / "train/dog").rename(tmp_path / "store" / "dog")
    (folder / "train/dog").symlink_to(tmp_path / "store" / "dog")
    (folder / "train/cat/0.png").rename(tmp_path / "store" / "0.png")
    (folder / "train/cat/0.png").symlink_to(tmp_path / "store" / "0.png")
    assert load(f"folder[path={folder}]").train.fingerprint == everything.train.fingerprint


def test_a_folder_that_is_a_link_itself(load, folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for path in ("link", folder / "../pets", "pets/", "./pets"):
        assert len(load(f"folder[path={path}]").train) == 6
    monkeypatch.chdir(folder)
    assert len(load("folder[path=.]").train) == 6


def test_folders_deeper_than_python_recurses(load, folder):
    deep = [f"{folder}/train/cat" + "/d" * depth for depth in range(1, 1050)]
    for path in deep:
        os.mkdir(path)
    shutil.copy(folder / "train/cat/0.png", f"{deep[-1]}/x.png")
    assert len(load(f"folder[path={folder}]").train) == 7
    os.unlink(f"{deep[-1]}/x.png")
    for path in reversed(deep):  # shutil.rmtree recurses
        os.rmdir(path)


def test_names_of_files_need_not_be_text(load, folder):
    os.rename(folder / "train/cat/0.png", os.fsencode(folder) + b"/train/cat/\xff.png")
    assert len(load(f"folder[path={folder}]").train) == 6


def test_more_files_than_any_set_has(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "MOST_IMAGES", 3)
    with pytest.raises(DataError, match=r"more than 3 images, up to .*train/cat: give another folder"):
        ImageFolder(folder, str(folder)).images("train", "cat")


def test_too_large_for_the_memory_is_said_before_anything_is_decoded(load, folder, root, memory, monkeypatch):
    memory(1000)
    monkeypatch.setattr(images, "_decode", None)
    said = r"decoding 9 images of 3x4x5 would need 0\.0 GB of memory, but all that this toy has is 0\.0 GB: give a"
    with pytest.raises(DataError, match=said):
        load(f"folder[path={folder}]")
    with pytest.raises(DataError, match=r"9 images of 3x1000x1000 would need 0\.0 GB"):
        load(f"folder[path={folder},size=1000]")
    assert not (root / "decoded").exists()


def test_a_size_is_compared_before_anything_is_decoded(load, folder, monkeypatch):
    Image.new("1", (9000, 9000)).save(folder / "test/dog/0.png")
    monkeypatch.setattr(images, "_decode", None)
    with pytest.raises(DataError, match=r"0\.png is 9000x9000 but .* is 5x4: give size=N"):
        load(f"folder[path={folder}]")


def test_a_cached_copy_too_large_for_the_memory(load, folder, memory):
    load(f"folder[path={folder}]")
    memory(100)
    with pytest.raises(DataError, match=r"the decoded images in .* would need"):
        load(f"folder[path={folder}]")


def test_memory_that_runs_out_is_not_called_a_damaged_file(load, folder, monkeypatch):
    def full(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(DDBenchError, match=r"load\(\) raised MemoryError"):
        load(f"folder[path={folder}]")


@pytest.mark.parametrize("how", ["vanishes", "becomes a pipe", "becomes a folder", "changes", "has another size"])
def test_a_file_that_changes_while_it_is_read(load, folder, root, noise, monkeypatch, how):
    """Nothing wrong is cached, and nothing waits."""
    file = folder / "train/cat/0.png"
    original = images.read_headers

    def read_headers(files, fitting):
        headers = original(files, fitting)
        file.unlink()
        {"becomes a pipe": lambda: os.mkfifo(file), "becomes a folder": file.mkdir,
         "changes": lambda: Image.fromarray(noise(4, 5, 3, seed=77)).save(file), "vanishes": lambda: None,
         "has another size": lambda: Image.fromarray(noise(6, 6, 3)).save(file)}[how]()  # fmt: skip
        return headers

    monkeypatch.setattr("harness.datasets.image_files.read_headers", read_headers)
    said = within_seconds(lambda: load(f"folder[path={folder}]"))
    assert said.startswith(str(file))
    assert not (root / "decoded").exists()


def test_a_cache_file_that_is_a_pipe_or_of_another_kind(load, folder, root, caplog):
    first = load(f"folder[path={folder}]")
    (cached,) = (root / "decoded").iterdir()
    cached.unlink()
    os.mkfifo(cached)
    assert load(f"folder[path={folder}]").train.fingerprint == first.train.fingerprint
    assert cached.is_file()


# Arrays


def header(shape, dtype="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def put(path, key, content):
    """Replace an array of an .npz file by bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, old in {**members, f"{key}.npy": b""}.items():
            archive.writestr(name, content if name == f"{key}.npy" else old)
    return path


@pytest.mark.parametrize(
    ("key", "content", "says"),
    [
        ("x_train", header((10**10, 6, 6)), "promises more in x_train than it holds: it is damaged"),
        ("x_train", header((12, -6, 6)), "cannot be read as plain arrays"),
        ("x_train", header((10**30, 10**30)), "promises more in x_train than it holds"),
        ("y_test", header((6,), "|O"), "cannot be read as plain arrays"),
        ("classes", header((1,), f"<U{2**28}"), "promises more in classes than it holds"),
        ("x_test", header((2**20 + 1, 8, 8)) + bytes(64 * (2**20 + 1)), "which are not images: write it by np.savez"),
        ("x_test", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "cannot be read as plain arrays"),
        ("x_test", b"not an array", "cannot be read as plain arrays"),
        ("x_test", b"", "cannot be read as plain arrays"),
    ],
)
def test_hostile_headers_are_refused_before_memory_is_taken(load, arrays, monkeypatch, key, content, says):
    path = put(arrays(), key, content)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(DataError, match=says) as caught:
        load(f"arrays[path={path}]")
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_arrays_too_large_for_the_memory(load, arrays, memory):
    path = arrays()
    memory(1000)
    with pytest.raises(
        DataError, match=r"the arrays in .*mine\.npz would need 0.0 GB of memory, but all that this toy"
    ):
        load(f"arrays[path={path}]")


@pytest.mark.parametrize("how", ["a pipe", "a folder", "a device"])
def test_a_path_of_arrays_that_is_no_file(load, tmp_path, how):
    path = tmp_path / "x.npz"
    {"a pipe": lambda: os.mkfifo(path), "a folder": path.mkdir, "a device": lambda: path.symlink_to("/dev/zero")}[how]()
    assert f"x.npz is {how}" in within_seconds(lambda: load(f"arrays[path={path}]"))


# Whitening


def test_a_covariance_too_large_for_the_memory_is_refused_with_the_number(memory):
    memory(25 * 10**9)
    with pytest.raises(DataError, match=r"whitening \(zca\) 2 images of 3x224x224 would need 1,450\.\d GB of memory"):
        Whiten.fitted(torch.zeros(2, 3, 224, 224, dtype=torch.uint8), 0.1)


# The files of torchvision's sets


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "half a header", "absurd sizes", "a pipe", "text"])
def test_truncated_raw_files_are_one_line(load, root, noise, name, damage):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    labels = np.arange(10, dtype=np.uint8)
    for part, images_of_part in (("train", noise(10, 28, 28)), ("t10k", noise(10, 28, 28))):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images_of_part))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    file = raw / name
    content = file.read_bytes()
    file.unlink()
    if damage == "a pipe":
        os.mkfifo(file)
    else:
        file.write_bytes({"truncated": content[:-3], "empty": b"", "half a header": content[:6],
                          "absurd sizes": content[:4] + b"\xff" * 12, "text": b"hello" * 9}[damage])  # fmt: skip
    assert "mnist is missing or damaged" in within_seconds(lambda: load("mnist"))


def test_a_png_that_promises_more_than_it_holds(load, folder):
    """A header of the right size, and pixels of another."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 7)) + chunk(b"IEND", b"")
    (folder / "train/cat/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
    with pytest.raises(DataError, match=r"0\.png cannot be decoded, replace or delete it"):
        load(f"folder[path={folder}]")
