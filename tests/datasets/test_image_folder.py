import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from harness.errors import DataError, UsageError
from harness.types.data.images import EXTENSIONS


def decoded(root):
    return list((root / "decoded").iterdir())


def test_classes_come_from_folder_names_and_pixels_are_those_of_the_files(load, folder):
    raw = load(f"folder[path={folder}]")
    assert raw.classes == ("cat", "dog")
    assert raw.train.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert raw.test.labels.tolist() == [0, 0, 1]
    assert raw.train.images.shape == (6, 3, 4, 5)
    for image, path in zip(raw.train.images, sorted((folder / "train").rglob("*.png")), strict=True):
        assert np.array_equal(image.numpy().transpose(1, 2, 0), np.asarray(Image.open(path)))


def test_suffixes_are_those_of_torchvision():
    assert EXTENSIONS == IMG_EXTENSIONS


def test_nested_folders_count_and_hidden_or_other_files_do_not(load, folder):
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    (folder / "train" / "cat" / ".hidden.png").write_text("not an image")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "cat" / ".thumbnails").mkdir()
    shutil.copy(folder / "train/cat/0.png", folder / "train/cat/.thumbnails/0.png")
    (folder / "README.md").write_text("about")
    assert len(load(f"folder[path={folder}]").train) == 6
    (folder / "train" / "dog" / "more").mkdir()
    shutil.copy(folder / "train/dog/0.png", folder / "train/dog/more/0.PNG")
    assert load(f"folder[path={folder}]").train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_images_are_resized_bilinearly_to_the_size_asked_for(load, folder):
    raw = load(f"folder[path={folder},size=8]")
    expected = Image.open(folder / "train/cat/0.png").resize((8, 8), Image.Resampling.BILINEAR)
    assert raw.train.images.shape == (6, 3, 8, 8)
    assert np.array_equal(raw.train.images[0].numpy().transpose(1, 2, 0), np.asarray(expected))


def test_images_are_grey_only_if_all_are(load, folder):
    files = sorted(folder.rglob("*.png"))
    for path in files:
        Image.open(path).convert("L").save(path)
    raw = load(f"folder[path={folder}]")
    assert raw.train.images.shape == (6, 1, 4, 5)
    assert np.array_equal(raw.train.images[0, 0].numpy(), np.asarray(Image.open(folder / "train/cat/0.png")))
    Image.open(files[0]).convert("RGB").save(files[0])  # one of the test images
    raw = load(f"folder[path={folder}]")
    assert raw.train.images.shape == (6, 3, 4, 5)
    assert torch.equal(raw.train.images[0, 0], raw.train.images[0, 2])


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LA", "1"])
def test_other_colour_modes_are_converted(load, folder, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.open(folder / "train/cat/0.png").convert("RGB").convert(mode).save(folder / f"train/cat/0.{suffix}")
    expected = Image.open(folder / f"train/cat/0.{suffix}").convert("RGB")
    image = load(f"folder[path={folder}]").train.images[0]
    assert np.array_equal(image.numpy().transpose(1, 2, 0), np.asarray(expected))


def test_a_tilde_in_the_path_is_the_home_folder(load, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(load("folder[path=~/pets]").train) == 6


def remove_split(folder):
    shutil.rmtree(folder / "test")


def rename_class(folder):
    (folder / "test" / "dog").rename(folder / "test" / "wolf")


def empty_class(folder):
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()


def no_classes(folder):
    for name in ("cat", "dog"):
        shutil.rmtree(folder / "train" / name)


def stray_image(folder):
    shutil.copy(folder / "train/cat/0.png", folder / "train/0.png")


def no_image(folder):
    (folder / "train/dog/1.png").write_text("hello")


def truncated_image(folder):
    content = (folder / "train/dog/1.png").read_bytes()
    (folder / "train/dog/1.png").write_bytes(content[: len(content) // 2])


def other_size(folder):
    Image.new("RGB", (7, 9)).save(folder / "test/dog/0.png")


def deep_image(folder):
    Image.fromarray(np.zeros((4, 5), dtype=np.uint16)).save(folder / "test/dog/0.png")


def link_to_nothing(folder):
    (folder / "test/dog/0.png").unlink()
    (folder / "test/dog/0.png").symlink_to(folder / "gone.png")


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (remove_split, "has no folder 'test': it must hold train/CLASS/ and test/CLASS/"),
        (rename_class, "class 'dog' is in .*train but not in .*test"),
        (empty_class, "class 'dog' is empty: there are no images in .*train/dog"),
        (no_classes, "train has no class folders"),
        (stray_image, r"train/0\.png is in no class"),
        (no_image, r"train/dog/1\.png is not an image that can be read: replace or delete it"),
        (truncated_image, r"train/dog/1\.png cannot be decoded, replace or delete it"),
        (other_size, r"test/dog/0\.png is 7x9 but .*train/cat/0\.png is 5x4: give size=N"),
        (deep_image, r"test/dog/0\.png has more than 8 bits a channel: convert it"),
        (link_to_nothing, r"test/dog/0\.png cannot be read: No such file"),
    ],
)
def test_bad_folders_are_one_clear_line_and_leave_no_cache(load, folder, root, damage, line):
    damage(folder)
    with pytest.raises(DataError, match=line) as caught:
        load(f"folder[path={folder}]")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert not (root / "decoded").exists()


def test_a_path_that_is_no_folder(load, tmp_path):
    with pytest.raises(
        DataError, match=r"nowhere does not exist: path= must name a folder with train/CLASS/ and test/CLASS/"
    ):
        load(f"folder[path={tmp_path}/nowhere]")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_class_folder(load, folder):
    (folder / "train" / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match="train/cat cannot be read: Permission denied"):
            load(f"folder[path={folder}]")
    finally:
        (folder / "train" / "cat").chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_cache_is_only_a_warning(load, folder, root, caplog):
    first = load(f"folder[path={folder}]")
    (root / "decoded").chmod(0)
    try:
        assert load(f"folder[path={folder}]").train.fingerprint == first.train.fingerprint
    finally:
        (root / "decoded").chmod(0o755)
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("folder", "'folder' needs its option 'path'"),
        ("folder[path=x,size=0]", r"folder\[size=0\]: should be greater than 0"),
        ("folder[path=x,like=cifar11]", "no known set is called 'cifar11': did you mean 'cifar10'"),
        ("arrays[path=x,like=nmist]", "did you mean 'mnist'"),
    ],
)
def test_bad_options_are_refused_when_the_name_is_read(resolve, name, line):
    with pytest.raises(UsageError, match=line):
        resolve(name)


def test_a_second_load_decodes_nothing(load, folder, root, monkeypatch):
    first = load(f"folder[path={folder}]")
    assert len(decoded(root)) == 1
    monkeypatch.setattr("harness.types.data.images._decode", None)
    second = load(f"folder[path={folder}]")
    assert second.train.fingerprint == first.train.fingerprint
    assert second.test.fingerprint == first.test.fingerprint


def test_the_cache_follows_content_names_and_size_but_not_the_place(load, folder, root, noise):
    first = load(f"folder[path={folder}]")
    moved = folder.rename(folder.with_name("moved"))
    assert load(f"folder[path={moved}]").train.fingerprint == first.train.fingerprint
    assert load(f"folder[path={moved},like=cifar10]").train.fingerprint == first.train.fingerprint
    assert len(decoded(root)) == 1
    load(f"folder[path={moved},size=4]")
    assert len(decoded(root)) == 2
    stamp = (moved / "train/cat/0.png").stat()
    Image.fromarray(noise(4, 5, 3, seed=9)).save(moved / "train/cat/0.png")
    os.utime(moved / "train/cat/0.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert load(f"folder[path={moved}]").train.fingerprint != first.train.fingerprint
    (moved / "train/cat/3.png").rename(moved / "train/dog/3.png")
    assert load(f"folder[path={moved}]").train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(decoded(root)) == 4


@pytest.mark.parametrize("damage", [lambda content: content[:-7], lambda content: content[:-1] + b"\0", lambda _: b""])
def test_a_damaged_cache_file_is_made_again(load, folder, root, caplog, damage):
    first = load(f"folder[path={folder}]")
    (path,) = decoded(root)
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    with caplog.at_level(logging.WARNING, logger="ddbench"):
        assert load(f"folder[path={folder}]").train.fingerprint == first.train.fingerprint
    assert "made again" in caplog.text
    assert path.read_bytes() == intact
    assert decoded(root) == [path]


def test_a_cache_that_cannot_be_written_is_only_a_warning(load, folder, root, caplog, capsys):
    (root / "decoded").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, logger="ddbench"):
        assert len(load(f"folder[path={folder}]").train) == 6
    assert "cannot be written" in caplog.text
    assert capsys.readouterr().out == ""


def test_a_full_disk_leaves_nothing_behind(load, folder, root, monkeypatch, caplog):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.system.whole_files.sync", full)
    with caplog.at_level(logging.WARNING, logger="ddbench"):
        load(f"folder[path={folder}]")
    assert "No space left on device" in caplog.text
    assert decoded(root) == []


def test_cache_files_have_the_usual_permissions(load, folder, root, tmp_path):
    load(f"folder[path={folder}]")
    (tmp_path / "usual").touch()
    assert decoded(root)[0].stat().st_mode == (tmp_path / "usual").stat().st_mode
