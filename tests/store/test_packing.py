"""Packed stores: the same bytes for the same content, read like the folder, and refused if anything is wrong."""

import hashlib
import io
import json
import lzma
import os
import resource
import shutil
import signal
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness.store.files.archive as archive
from harness.errors import StoreError, UsageError
from harness.store.cells import canonical_json
from harness.store.files.reading import with_checksum
from harness.store.packing import Selection, open_store, pack, unpack
from harness.store.store import Store
from harness.store.verification import verify

OLD = Path(__file__).parent.parent / "data" / "store-v1"
MARKER = b'{"schema":1}'


@pytest.fixture
def store(tmp_path):
    folder = shutil.copytree(OLD, tmp_path / "store")
    shutil.rmtree(folder / "locks")
    return folder


@pytest.fixture
def packed(store, tmp_path):
    pack(Store(store), tmp_path / "store.tar.xz")
    return tmp_path / "store.tar.xz"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- the same content, the same bytes ---------------------------------------------------------------------------------


def test_what_is_unpacked_is_what_was_packed_byte_for_byte(store, packed, tmp_path):
    assert unpack(packed, tmp_path / "new") == len(contents(store))
    assert contents(tmp_path / "new") == contents(store)


def test_the_same_content_gives_the_same_bytes_whenever_and_wherever_it_is_packed(store, packed, tmp_path):
    unpack(packed, tmp_path / "deep" / "new")
    for path in (tmp_path / "deep").rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    for place in (Store(store), Store(tmp_path / "deep" / "new"), open_store(packed)):
        pack(place, tmp_path / "again.tar.xz")
        assert (tmp_path / "again.tar.xz").read_bytes() == packed.read_bytes()


def test_any_tar_program_unpacks_a_sound_store(packed, tmp_path):
    with tarfile.open(packed) as file:
        assert {(member.mode, member.mtime, member.uid, member.uname) for member in file} == {(0o644, 0, 0, "")}
        file.extractall(tmp_path / "new", filter="data")
    assert list(verify(Store(tmp_path / "new"))) == []


def test_records_lie_in_front_of_tensors(packed):
    with tarfile.open(packed) as file:
        names = file.getnames()
    is_record = [not name.startswith("cells/") or name.endswith("/record.json") for name in names]
    assert names[0] == "pack.json"
    assert is_record == sorted(is_record, reverse=True)
    assert not is_record[-1]


def test_leases_checkpoints_runs_and_strangers_stay_out(store, packed, tmp_path):
    for name in ("leases/x", "partial/ab/x", "runs/x/run.json", "notes.txt", "cells/.writing-1-2/x"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("x")
    pack(Store(store), tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == packed.read_bytes()


# --- selections -------------------------------------------------------------------------------------------------------


def test_sets_that_are_left_out_are_no_damage_but_all_else_still_is(store, tmp_path):
    selection = Selection(sets=False)
    left_out = pack(Store(store), tmp_path / "light.tar.xz", selection).left_out
    unpack(tmp_path / "light.tar.xz", tmp_path / "light")
    light = Store(tmp_path / "light")
    assert left_out == len([name for name in contents(store) if name.endswith((".safetensors", ".png"))])
    assert list(verify(light)) == []
    assert list(light.records()) == list(Store(store).records())
    record = next((tmp_path / "light").glob("cells/*/*/record.json"))
    before = record.read_bytes()
    record.write_bytes(before.replace(b"student", b"teacher"))
    assert len(list(verify(light))) == 1
    record.write_bytes(before)
    name = next(name for name in contents(store) if name.endswith("/set.safetensors"))
    (light.path / name).write_bytes(b"x")
    assert [line.partition(":")[0] for line in verify(light)] == [f"{light.path / name} was altered"]
    shutil.copy(store / name, light.path / name)
    assert list(verify(light)) == []


def test_a_file_that_is_missing_from_a_whole_store_is_damage(store):
    next(store.glob("cells/*/*/set.safetensors")).unlink()
    assert len(list(verify(Store(store)))) == 1


def test_a_damaged_list_of_what_was_left_out_is_one_line_of_its_own(store, tmp_path):
    pack(Store(store), tmp_path / "light.tar.xz", Selection(sets=False))
    unpack(tmp_path / "light.tar.xz", tmp_path / "light")
    path = tmp_path / "light" / "left-out.json"
    path.write_text(path.read_text().replace("set.safetensors", "sex.safetensors"))
    lines = list(verify(Store(tmp_path / "light")))
    assert "left-out.json cannot be read" in lines[0]
    assert all("is missing" in line for line in lines[1:])


def test_a_packed_store_without_sets_stays_so_when_it_is_packed_again(store, packed, tmp_path):
    pack(open_store(packed), tmp_path / "light.tar.xz", Selection(sets=False))
    unpack(tmp_path / "light.tar.xz", tmp_path / "light")
    pack(Store(tmp_path / "light"), tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == (tmp_path / "light.tar.xz").read_bytes()


def test_a_set_that_was_left_out_is_named_with_the_remedy(store, tmp_path):
    pack(Store(store), tmp_path / "light.tar.xz", Selection(sets=False))
    light = open_store(tmp_path / "light.tar.xz")
    (key,) = {record.key for record in light.records() if record.kind == "distilled"}
    with pytest.raises(StoreError, match="was left out when the store was packed"):
        light.file(key, "set.safetensors")


def test_artifacts_can_stay_out_with_their_records(store, tmp_path):
    before, packed = Store(store), tmp_path / "store.tar.xz"
    cells = pack(before, packed, Selection(artifacts=False)).cells
    after = open_store(packed)
    assert [record for record in before.records() if record.kind != "artifact"] == list(after.records())
    assert cells == len(list(after.records())) == len(list(before.records())) - 1
    assert list(verify(after)) == []


def test_chosen_cells_go_in_with_all_attempts_and_failures_stay_out(store, tmp_path):
    attempts = Store(store).attempts()
    key = next(key for key in attempts if len(attempts[key]) > 1)
    pack(Store(store), tmp_path / "one.tar.xz", Selection({key}))
    chosen = open_store(tmp_path / "one.tar.xz")
    assert {key: len(folders) for key, folders in chosen.attempts().items()} == {key: len(attempts[key])}
    assert not (chosen.path / "failures").exists()


# --- what is refused when a store is packed ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["record.json", "set.safetensors"])
def test_a_damaged_store_is_not_packed(store, tmp_path, name):
    path = next(store.glob(f"cells/8b/*/{name}"))
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    refuses_to_pack(store, tmp_path, name)
    path.unlink()
    path.mkdir()
    refuses_to_pack(store, tmp_path, name)


def refuses_to_pack(store, tmp_path, name):
    before = names_in(tmp_path)
    with pytest.raises(StoreError, match=rf"{name}.*`ddbench results"):
        pack(Store(store), tmp_path / "new.tar.xz")
    assert names_in(tmp_path) == before


def test_a_damaged_note_of_a_failure_is_not_packed(store, tmp_path):
    (store / "failures" / "abcd.json").write_text("{")
    with pytest.raises(StoreError, match=r"abcd\.json cannot be read"):
        pack(Store(store), tmp_path / "new.tar.xz")


def test_a_store_that_changes_while_it_is_packed_is_refused(store, tmp_path, monkeypatch):
    log, before = next(store.glob("failures/*.log")), archive._header

    def changed(name, size):
        if name == "pack.json":
            log.write_bytes(b"x" * log.stat().st_size)
        return before(name, size)

    monkeypatch.setattr(archive, "_header", changed)
    with pytest.raises(StoreError, match="changed while it was packed"):
        pack(Store(store), tmp_path / "new.tar.xz")
    assert not (tmp_path / "new.tar.xz").exists()


def test_a_packed_file_is_not_written_into_its_store_or_where_nothing_can_be(store, tmp_path):
    with pytest.raises(UsageError, match="lies in the store"):
        pack(Store(store), store / "cells" / "new.tar.xz")
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        pack(Store(store), tmp_path / "none" / "new.tar.xz")


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_or_a_pipe_is_never_replaced_by_a_packed_file(store, tmp_path, link):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "mine.png").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pictures", "pipe"):
        target = tmp_path / f"link to {name}" if link else tmp_path / name
        if link:
            target.symlink_to(tmp_path / name)
        before = names_in(tmp_path)
        with pytest.raises(UsageError, match=f"{name} is not a file, and is not replaced by one: give another place"):
            pack(Store(store), target)
        assert names_in(tmp_path) == before
    assert (tmp_path / "pictures" / "mine.png").read_text() == "mine"


@pytest.mark.parametrize("what", ["file", "folder"])
def test_nothing_is_unpacked_over_something_else(packed, tmp_path, what):
    target = tmp_path / "there"
    if what == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()
    with pytest.raises(UsageError, match="is there already"):
        unpack(packed, target)


def test_an_empty_folder_is_filled(packed, store, tmp_path):
    (tmp_path / "new").mkdir()
    unpack(packed, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(store)


# --- killed in the middle ---------------------------------------------------------------------------------------------


def killed(work):
    """Do some work in a process that is killed in the middle of it, or fails this test."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("moment", ["_opened", "_read_manifest"])
def test_a_killed_pack_leaves_what_was_there(store, packed, monkeypatch, tmp_path, moment):
    before = packed.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(archive, moment, kill)
        for target in (packed, tmp_path / "new.tar.xz"):
            killed(lambda target=target: pack(Store(store), target))
    assert packed.read_bytes() == before
    assert not (tmp_path / "new.tar.xz").exists()
    pack(Store(store), tmp_path / "new.tar.xz")
    assert (tmp_path / "new.tar.xz").read_bytes() == before


def test_a_killed_unpack_leaves_no_store(packed, store, monkeypatch, tmp_path):
    copy, count = archive._copy, iter(range(6))
    with monkeypatch.context() as patched:
        patched.setattr(archive, "_copy", lambda *args: copy(*args) if next(count) < 5 else kill())
        killed(lambda: unpack(packed, tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    unpack(packed, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(store)


def test_what_is_unpacked_to_be_read_goes_with_the_store(packed, monkeypatch, tmp_path):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    store = open_store(packed)
    records = open_store(packed).records()
    assert len(list((tmp_path / "temporary").iterdir())) == 2
    assert len(list(records)) == len(list(store.records())) > 0
    del store, records
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(StoreError):
        open_store(packed)
    assert list((tmp_path / "temporary").iterdir()) == []


# --- hostile and damaged files ----------------------------------------------------------------------------------------

KEY = "ab" * 32
NAME_PARTS = ("cells/", "ab/", KEY, "-1", "/", "..", "failures/", ".json", "x", "\\", "\0", "~", "store.json", "data/",
              "/description.json")  # fmt: skip


def entry(name, content, **changes):
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in changes.items():
        setattr(header, field, value)
    return header, content


def listed(files):
    return [[name, len(content), hashlib.sha256(content).hexdigest()] for name, content in files.items()]


def manifest(files, form=1):
    value = {"format": form, "files": listed(files) if isinstance(files, dict) else files}
    return entry("pack.json", canonical_json(with_checksum(value)).encode())


def compressed(entries, form=tarfile.USTAR_FORMAT, after=b""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for header, content in entries:
            file.addfile(header, io.BytesIO(content))
    return lzma.compress(buffer.getvalue() + after)


def sound(**changes):
    return [manifest({"store.json": MARKER}), entry("store.json", MARKER, **changes)]


def with_name(name):
    return compressed([manifest([[name, 1, hashlib.sha256(b"x").hexdigest()]]), entry(name, b"x")])


LONG = [["store.json", 2**40, "0" * 64]]
TWICE = [*listed({"store.json": MARKER}), *listed({"store.json": MARKER})]
LARGE = compressed([manifest({"store.json": MARKER}), entry("store.json", b"\0" * 2**20)])
HOSTILE = {
    "nothing": (b"", "it is not an xz file"),
    "a text": (b"hello " * 99, "it is not an xz file"),
    "xz of no tar": (lzma.compress(b"hello " * 99), "a header in it cannot be read"),
    "an empty tar": (compressed([]), "a header in it cannot be read"),
    "cut": (compressed(sound())[:-20], "it ends too early"),
    "a second stream": (compressed(sound()) * 2, "something follows"),
    "more than is listed": (compressed([*sound(), entry("cells/x", b"x")]), "something follows"),
    "a tail": (compressed(sound(), after=b"x" * 512), "something follows"),
    "much emptiness": (compressed(sound(), after=b"\0" * 2**22), "something follows"),
    "less than is listed": (compressed(sound()[:1]), "a header in it cannot be read"),
    "no manifest": (compressed(sound()[1:]), "it begins with 'store.json'"),
    "a link": (compressed(sound(type=tarfile.SYMTYPE, linkname="/etc", size=0)), "the link 'store.json'"),
    "a hard link": (compressed(sound(type=tarfile.LNKTYPE, linkname="pack.json", size=0)), "the link 'store.json'"),
    "a device": (compressed(sound(type=tarfile.CHRTYPE, size=0)), "the device or pipe 'store.json'"),
    "a pipe": (compressed(sound(type=tarfile.FIFOTYPE, size=0)), "the device or pipe 'store.json'"),
    "a folder": (compressed(sound(type=tarfile.DIRTYPE, size=0)), "the folder 'store.json'"),
    "extended headers": (compressed(sound(pax_headers={"path": "/x"}), tarfile.PAX_FORMAT), "the special entry"),
    "a long name": (compressed([entry("x" * 300, b"")], tarfile.GNU_FORMAT), "the special entry"),
    "an absolute name": (with_name("/etc/passwd"), "a store has no place for that"),
    "a way out": (with_name("../x"), "a store has no place for that"),
    "a way out of a cell": (with_name(f"cells/ab/{KEY}-1/../../../../x"), "a store has no place for that"),
    "two dots": (with_name(f"cells/ab/{KEY}-1/.."), "a store has no place for that"),
    "a hidden file": (with_name(f"cells/ab/{KEY}-1/.x"), "a store has no place for that"),
    "another shelf": (with_name(f"cells/cd/{KEY}-1/x"), "a store has no place for that"),
    "a lease": (with_name("leases/x"), "a store has no place for that"),
    "a name twice": (compressed([manifest(TWICE), *sound()[1:], *sound()[1:]]), "it lists 'store.json' twice"),
    "another name": (compressed([*sound()[:1], entry("../x", MARKER)]), "it holds '../x' where 'store.json' is listed"),
    "another size": (LARGE, "1,048,576 bytes, and 12 are listed"),
    "other content": (compressed([*sound()[:1], entry("store.json", b'{"schema":2}')]), "store.json was altered"),
    "no order": (compressed([manifest({f"cells/ab/{KEY}-1/x": b"x", "store.json": b"y"})]), "not in order"),
    "a bomb": (compressed([manifest(LONG)]), "it promises 1,099,511,627,776 bytes in"),
    "a large manifest": (lzma.compress(entry("pack.json", b"", size=2**32)[0].tobuf()), "has 4,294,967,296 bytes"),
    "a negative size": (compressed([manifest([["store.json", -1, ""]])]), "store.json has -1 bytes"),
    "no number": (compressed([manifest([["store.json", "1", ""]])]), "is not a name, a size and a digest"),
    "no list": (compressed([manifest(3)]), "its pack.json cannot be used"),
    "an altered manifest": (compressed([entry("pack.json", b'{"format":1,"files":[],"checksum":"0"}')]), "altered"),
    "deep": (compressed([entry("pack.json", b"[" * 10**5)]), "nested more than"),
    "a format in words": (compressed([manifest({"store.json": MARKER}, form="1")]), "'1' is not a format"),
    "no format": (compressed([manifest({"store.json": MARKER}, form=0)]), "0 is not a format"),
    "a newer format": (compressed([manifest([], form=3)]), "packed by a newer ddbench"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_nothing_is_written(tmp_path, monkeypatch, what):
    content, reason = HOSTILE[what]
    file = tmp_path / "bad.tar.xz"
    file.write_bytes(content)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for read in (open_store, lambda file: unpack(file, tmp_path / "new")):
        with pytest.raises(StoreError) as error:
            read(file)
        assert str(error.value).startswith(f"{file} cannot be read as a packed store (")
        assert reason in str(error.value)
        assert "`ddbench results pack`" in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bad.tar.xz", "temporary"]


def test_a_header_that_asks_for_gigabytes_of_memory_is_refused(tmp_path):
    content = bytearray(lzma.compress(b"x"))
    size = 4 * (content[12] + 1)
    assert content[14:16] == b"\x21\x01", "the block's one filter is LZMA2, whose one property is the dictionary's size"
    content[16] = 40  # 4 GiB - 1
    content[8 + size : 12 + size] = zlib.crc32(content[12 : 8 + size]).to_bytes(4, "little")
    (tmp_path / "bad.tar.xz").write_bytes(content)
    with pytest.raises(StoreError, match="xz cannot read it: Memory usage limit exceeded"):
        open_store(tmp_path / "bad.tar.xz")


def test_a_file_that_the_disk_has_no_room_for_is_refused_with_the_remedy(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 7, 3))
    with pytest.raises(StoreError, match=r"has room for 3\): make room there, or give another place") as refused:
        unpack(packed, tmp_path / "new")
    assert f"cannot be unpacked into {tmp_path} (" in str(refused.value)
    with pytest.raises(StoreError, match=r"has room for 3\): make room there, or set the environment variable TMPDIR"):
        open_store(packed)


def test_a_disk_that_fills_up_meanwhile_is_not_called_damage_of_the_packed_file(packed, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be unpacked into .* \(File too large\): make room there"):
            unpack(packed, tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == ["store", "store.tar.xz"]


def test_the_hand_made_file_of_these_tests_is_a_store(tmp_path):
    (tmp_path / "good.tar.xz").write_bytes(compressed(sound()))
    assert unpack(tmp_path / "good.tar.xz", tmp_path / "new") == 1
    assert Store(tmp_path / "new").path.joinpath("store.json").read_bytes() == MARKER


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_a_packed_store_with_a_changed_byte_is_refused_or_is_the_same_store(tmp_path, data):
    good = compressed(sound())
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255))
    (tmp_path / "bad.tar.xz").write_bytes(good[:place] + bytes([byte]) + good[place + 1 :])
    try:
        store = open_store(tmp_path / "bad.tar.xz")
    except StoreError:
        return
    assert contents(store.path) == {"store.json": MARKER}


@settings(max_examples=200)
@given(name=st.lists(st.sampled_from(NAME_PARTS), max_size=8).map("".join))
def test_no_name_leads_out_of_the_folder(name):
    if archive.is_name(name):
        parts = name.split("/")
        assert ".." not in parts
        assert "" not in parts
        assert "\0" not in name


# --- what only a folder can ----------------------------------------------------------------------------------------


def test_a_packed_store_is_not_written_to(packed):
    with pytest.raises(StoreError, match="`ddbench results unpack`"):
        open_store(packed).open()
    with pytest.raises(StoreError, match="`ddbench results unpack` makes a folder of it"):
        Store(packed)


def test_only_records_are_unpacked_if_they_are_enough(packed):
    store = open_store(packed, records_only=True)
    assert list(store.records()) == list(open_store(packed).records())
    assert not list(store.path.rglob("*.safetensors"))
    assert json.loads((store.path / "store.json").read_text()) == {"schema": 1}
