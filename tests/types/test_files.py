"""What is written is there whole, or what was there before is there still."""

import errno
import os
import stat
from pathlib import Path

import pytest

from harness.system.whole_files import beside, write_whole


def test_what_is_written_is_there(tmp_path):
    write_whole(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_text() == "größer"
    write_whole(tmp_path / "a.txt", b"\x00\xff")
    assert (tmp_path / "a.txt").read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["write_bytes", "fsync", "replace"])
def test_what_was_there_before_stays_where_writing_fails(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    write_whole(path, "before")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path if step == "write_bytes" else os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "after")
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_files_are_on_the_disk_before_they_take_their_place_and_the_place_afterwards(tmp_path, monkeypatch):
    calls, sync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def replaced(*paths):
        calls.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_whole(tmp_path / "a.txt", "a")
    assert calls == ["file", "rename", "folder"]


def fill(folder, text):
    folder.mkdir()
    (folder / "part").mkdir()
    (folder / "part" / "a.txt").write_text(text)


def test_a_folder_takes_the_place_of_another(tmp_path):
    fill(tmp_path / "there", "before")
    with beside(tmp_path / "there") as new:
        fill(new, "after")
        assert (tmp_path / "there" / "part" / "a.txt").read_text() == "before"
    assert (tmp_path / "there" / "part" / "a.txt").read_text() == "after"
    assert os.listdir(tmp_path) == ["there"]


def test_a_folder_goes_back_to_its_place_where_the_new_one_cannot_take_it(tmp_path, monkeypatch):
    fill(tmp_path / "there", "before")
    rename = Path.rename

    def failing(path, target):
        if path.name.startswith(".") and target.name == "there" and (path / "part" / "a.txt").read_text() == "after":
            raise OSError(errno.EIO, "no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"), beside(tmp_path / "there") as new:
        fill(new, "after")
    assert (tmp_path / "there" / "part" / "a.txt").read_text() == "before"
    assert os.listdir(tmp_path) == ["there"]


def test_nothing_takes_the_place_where_the_writer_raises(tmp_path):
    fill(tmp_path / "there", "before")
    with pytest.raises(FileNotFoundError), beside(tmp_path / "there") as new:
        fill(new / "half", "after")
    assert (tmp_path / "there" / "part" / "a.txt").read_text() == "before"
    assert os.listdir(tmp_path) == ["there"]


def test_the_folder_in_which_one_is_can_be_replaced(tmp_path, monkeypatch):
    fill(tmp_path / "there", "before")
    monkeypatch.chdir(tmp_path / "there")
    with beside(Path()) as new:
        fill(new, "after")
    assert (tmp_path / "there" / "part" / "a.txt").read_text() == "after"
