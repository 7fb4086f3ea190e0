"""Every file of a store has one reader: what is wrong with a file is said in one line, and nothing waits or raises."""

import contextlib
import errno
import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.store.files.reading import (
    DamagedFile,
    parse_checked,
    read_bytes,
    read_object,
    with_checksum,
    without_checksum,
)
from harness.system.bounded_json import JsonLimits, parse_object

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=8,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=5)


@given(OBJECTS)
def test_what_is_written_is_read_again(value):
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        assert parse_object(text.encode()) == value
    whole = {name: part for name, part in value.items() if name != "checksum"}
    assert without_checksum(parse_object(json.dumps(with_checksum(whole)).encode())) == whole


@given(st.binary() | st.text().map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_an_object_or_a_value_error(content):
    said = ""
    try:
        assert isinstance(parse_object(content), dict)
    except ValueError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


@given(OBJECTS, st.data())
def test_a_flipped_bit_is_found_or_changes_nothing(value, data):
    content = bytearray(json.dumps(with_checksum({**value, "a": 1})).encode())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ValueError):
        assert parse_checked(bytes(content), ("a",)) == {**value, "a": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "Expecting value"),
        (b"null", "it holds no object"),
        (b"5", "it holds no object"),
        (b'"abc"', "it holds no object"),
        (b"[" * 100_000, "nested more than"),
        (b"[" * 100_000 + b"]" * 100_000, "nested more than"),
        (b'{"a":' * 100_000, "nested more than"),
        (b'{"a": "' + b"[" * 100_000 + b'"}', ""),
        (b'{"a":' * JsonLimits().depth + b"1" + b"}" * JsonLimits().depth, ""),
        (b'"' + b'\\"' * 1_000_000, "Unterminated string"),
        (b'{"a": NaN}', "the number NaN"),
        (b'{"a": -Infinity}', "the number -Infinity"),
        (b'{"a": 1e999}', "the number 1e999"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a whole number of 5,000 digits"),
        (b'{"a": 1, "a": 2}', "the name 'a' twice"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a": 1}'.encode("utf-16"), "can't decode"),
    ],
)
def test_json_that_can_be_meant_otherwise_is_refused(tmp_path, text, says):
    (tmp_path / "file").write_bytes(text)
    if not says:
        assert read_object(tmp_path / "file")
        return
    with pytest.raises(DamagedFile) as refused:
        read_object(tmp_path / "file")
    assert str(refused.value).startswith(f"{tmp_path}/file cannot be read (")
    assert says in str(refused.value)


def listen(path):
    here = os.getcwd()
    os.chdir(path.parent)
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(
    ("put", "kind"),
    [
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a pipe"),
        (listen, "a socket"),
        (lambda path: path.symlink_to("nothing"), "a link"),
        (lambda path: path.symlink_to(path.name), "a link"),
        (lambda path: path.symlink_to("/dev/zero"), "a link"),
        (lambda path: path.symlink_to(__file__), "a link"),
    ],
)
def test_what_is_no_plain_file_is_not_opened(tmp_path, put, kind):
    put(tmp_path / "file")
    with pytest.raises(DamagedFile, match=f"it is {kind}, and not a file"):
        read_bytes(tmp_path / "file")


def test_a_device_is_not_opened(monkeypatch):
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(DamagedFile, match="it is a device"):
        read_bytes("/dev/tty")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DamagedFile, match="more than 268,435,456 bytes"):
        read_object(tmp_path / "file")


def test_a_file_that_may_not_be_read_is_damaged(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "file").write_text("{}")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DamagedFile, match="Permission denied"):
        read_object(tmp_path / "file")


@pytest.mark.parametrize("path", ["file", "other/file"])
def test_a_file_that_is_missing_is_not_damaged(tmp_path, path):
    (tmp_path / "other").write_text("no folder")
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"a": 1}', "it has no b"),
        (b'{"a": 1, "b": 2, "chdcksum": "x"}', "a field 'chdcksum' that no version wrote"),
        (b'{"a": 1, "b": 2, "checksum": "x"}', "it was altered"),
        (json.dumps(with_checksum({"a": 1})).encode(), "it has no b"),
    ],
)
def test_a_checksum_is_checked_if_there_is_one(content, says):
    assert parse_checked(b'{"a": 1, "b": 2}', ("a", "b")) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match=says):
        parse_checked(content, ("a", "b"))
