"""Every damage that a generator makes to a store, and what the commands make of it: ``python -m tests.damages``.

Each file of each kind is damaged in each way (as bytes, and field by field), one at a time. ``results verify`` has to
name it, and no command may raise or wait: the run makes what it lacks, and the others go on with the rest.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cli.output import plain
from harness.running.event_log import EventLog
from harness.store import verification
from harness.store.cells import key_of
from harness.store.event_files import ENDED, CellName
from harness.store.failures import Failure
from harness.store.files.reading import CHECKSUM, with_checksum
from harness.store.locking.leases import Leases
from harness.store.records import parse_record
from harness.store.store import Store
from harness.store.unfinished import write_sealed
from tests.studies import ddbench, records, small_run, small_words, write_arrays

DEEP = 100_000
PATIENCE = 60
"""Seconds after which a command counts as hanging: the longest takes one."""
POOLS = ("single[main=mlp[width=4]]", "single[main=mlp[width=5]]")
STUDY = {
    "method": "dc[batch_real=4]",
    "evaluator": "kd[epochs=1,teacher=mlp[width=4]]",
    "architecture": "mlp[width=4]",
    "iterations": 1,
    "distillations": 2,
    "students": 2,
    "compile": "never",
}


FILES = {
    "store.json": "store.json",
    "note of a failure": "failures/*.json",
    "text of a failure": "failures/*.log",
    "lease": "leases/*",
    "request of a run": "runs/*/run.json",
    "plan of a run": "runs/*/plan.json",
    "events of a job": "runs/*/*.events",
    "log of a job": "runs/*/*.log",
    "checkpoint": "partial/*/*",
    "description of data": "data/*/description.json",
    "picture of data": "data/*/images.png",
}
"""By kind, where files lie beside those of cells."""


class HangError(BaseException):
    """A command did not come to an end."""


@dataclass(frozen=True)
class Damage:
    """One thing that is done to a store.

    Attributes:
        kind: of the file.
        name: what is done to it.
        path: the file, in the store.
        spoil: does it, given the whole path.
        harmless: why it need not be named; empty if it has to be.
    """

    kind: str
    name: str
    path: str
    spoil: Callable[[Path], None]
    harmless: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True)
class Sample:
    """A small store with a file of every kind, and the command that made it and has two students in it left to make."""

    store: Path
    data: Path

    def words(self, store: Path) -> list[str]:
        """Of the command, for a copy of the store."""
        words = small_words(self.data, store, **STUDY, pool=POOLS[0])
        return [*words, "--pool", POOLS[1]]

    def folders(self) -> dict[str, str]:
        """A folder of each kind, by what it is; the store itself is the empty one."""
        attempt = sorted(self.store.glob("cells/??/*-*"))[0].relative_to(self.store)
        (run,), (partial,), (data,) = (list((self.store / name).iterdir()) for name in ("runs", "partial", "data"))
        return {
            "folder of cells": "cells",
            "folder of a shelf": str(attempt.parent),
            "folder of an attempt": str(attempt),
            "folder of failures": "failures",
            "folder of leases": "leases",
            "folder of runs": "runs",
            "folder of a run": str(run.relative_to(self.store)),
            "folder of parts": "partial",
            "folder of a trajectory's parts": str(partial.relative_to(self.store)),
            "folder of what was set aside": "discarded",
            "folder of descriptions": "data",
            "folder of a description": str(data.relative_to(self.store)),
        }

    def files(self) -> dict[str, str]:
        """A file of each kind, by what it is."""
        files = {}
        for name, record in sorted(records(self.store).items()):
            folder = f"cells/{name[:2]}/{name}"
            files.setdefault(f"record of a {record['kind']}", f"{folder}/record.json")
            for file in record["files"]:
                files.setdefault(f"{file} of a {record['kind']}", f"{folder}/{file}")
        for kind, pattern in FILES.items():
            files[kind] = str(sorted(self.store.glob(pattern))[0].relative_to(self.store))
        return files


def make_sample(folder: Path) -> Sample:
    """Make the store."""
    sample = Sample(folder / "store", write_arrays(folder / "toy.npz"))
    small_run(sample.data, sample.store, **STUDY, pool=POOLS)
    store = Store(sample.store)
    students = [record for record in store.records() if record.kind == "student"]
    by_set = {(student.result.pool, student.result.distillation): student for student in students}
    failed, *missing = (by_set[place] for place in ((POOLS[0], 0), (POOLS[0], 1), (POOLS[1], 0)))
    for record in (failed, *missing):
        shutil.rmtree(store.folder(record.key))
    store.failures.note(Failure(failed.key, "student", failed.label, "RuntimeError: näh", "a\ntraceback\n"))
    curve = {"kd[temperature=1]": 0.25, "kd[temperature=2]": 0.5}
    identity = {"kind": "choice", "option": "kd.temperature"}
    result = {"option": "kd.temperature", "value": "kd[temperature=2]", "curve": curve}
    choice = {"kind": "choice", "label": "a choice", "key": key_of(identity), "identity": identity, "result": result}
    store.commit(parse_record({**choice, "provenance": {}}))
    (run,) = (sample.store / "runs").iterdir()
    log = EventLog(store, run / "ab.events")
    cell = CellName("ab" * 32, "student", "a cell")
    log.started(cell)
    log.step(cell, 1, 2, {"loss": 0.5})
    log.notice("näh")
    log.end(ENDED)
    (run / "ab.log").write_text("what a job printed\n")
    (sample.store / "discarded").mkdir()
    partial = sample.store / "partial" / ("cd" * 32)
    partial.mkdir(parents=True)
    write_sealed(partial, f"00000001-{'e' * 12}", b"tensors" * 9)
    with store.leases.hold("ef" * 32, "a trajectory") as lease:
        lease.report(cell="ab" * 32, iteration=1, total=2)
        lease.beat()
        content = lease.path.read_bytes()
    lease.path.write_bytes(content)
    return sample


# --- what is done to a file -------------------------------------------------------------------------------------------


def _replaced(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.unlink() or path.write_bytes(content)


def _changed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.unlink() or path.symlink_to(target)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "a file").write_text("x")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(path.name)
    os.chdir(here)


def _copy_elsewhere(path: Path) -> None:
    other = path.parents[len(path.parts) - path.parts.index("store") - 1].parent / "elsewhere"
    path.rename(other)
    path.symlink_to(other)


PLACES = {
    "missing": Path.unlink,
    "a folder": _folder,
    "a pipe": _pipe,
    "a socket": _socket,
    "a link to nothing": _link("nothing"),
    "a link to itself": lambda path: path.unlink() or path.symlink_to(path.name),
    "a link to /dev/zero": _link("/dev/zero"),
    "a link to /dev/stdin": _link("/dev/stdin"),
    "a link to its folder": _link("."),
    "a link to the same file elsewhere": _copy_elsewhere,
    "a link to store.json": lambda path: path.unlink() or path.symlink_to(_store_of(path) / "store.json"),
}
CONTENTS = {
    "empty": lambda content: b"",
    "truncated": lambda content: content.rstrip()[: len(content.rstrip()) // 2],
    "the last byte missing": lambda content: content.rstrip()[:-1],
    "a byte more": lambda content: content + b"x",
    "zeros": lambda content: b"\0" * len(content),
    "UTF-16": lambda content: content.decode("latin-1").encode("utf-16"),
    "a BOM": lambda content: b"\xef\xbb\xbf" + content,
    "latin-1": lambda content: content[:-2] + "é".encode("latin-1") + content[-2:],
    "random bytes": lambda content: random.Random(0).randbytes(len(content)),
}
TEXTS = {
    "nested lists": "[" * DEEP,
    "closed nested lists": "[" * DEEP + "]" * DEEP,
    "nested objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "null": "null",
    "a number": "5",
    "a text": '"abc"',
    "a list": "[]",
    "an object": "{}",
    "a literal": "NaN",
    "a minus": "-Infinity",
    "a long number": "1" * 10_000,
    "escapes": '"' + '\\"' * 200_000,
}
OTHER_VALUES = {
    "null": None,
    "a text": "abc",
    "a long text": "é" * 5000,
    "a number": 7,
    "a negative": -1,
    "a fraction": 1.5,
    "true": True,
    "a list": [[[]]],
    "an object": {"a": 1},
    "beyond 64 bits": 2**70,
    "beyond floats": float("inf"),
    "NaN": float("nan"),
    "half a surrogate": "\ud800",
    "a control character": "\x1b[2J",
}


FEW = ("null", "a long text", "NaN")
FITS = ", with a checksum"
FREE = "a checksum was made that fits, and no table reads the value"


def _store_of(path: Path) -> Path:
    return next(folder for folder in path.parents if (folder / "cells").exists())


def _flip(bit: int) -> Callable[[bytes], bytes]:
    def flipped(content: bytes) -> bytes:
        spoilt = bytearray(content)
        spoilt[bit // 8] ^= 1 << bit % 8
        return bytes(spoilt)

    return flipped


# --- the damages ------------------------------------------------------------------------------------------------------

EPHEMERAL = {
    "events of a job": "they are for who waits for the job; texts have no digest, and the last line may be half one",
    "log of a job": "it is what a job printed, and may hold anything",
}


def damages(sample: Sample, flips: int = 24) -> Iterator[Damage]:
    """All of them; of each file so many bits are flipped, chosen by a generator of one seed."""
    for kind, path in sample.files().items():
        content = (sample.store / path).read_bytes()
        for name, spoil in PLACES.items():
            yield Damage(kind, name, path, spoil, _harmless_place(kind, name))
        for name, change in CONTENTS.items():
            if change(content) != content:
                yield Damage(kind, name, path, _changed(change), _harmless_content(kind, name))
        for name, text in TEXTS.items():
            yield Damage(kind, name, path, _replaced(text.encode()), _harmless_content(kind, name))
        for bit in sorted(random.Random(kind).sample(range(8 * len(content.rstrip())), min(flips, 8 * len(content)))):
            yield Damage(kind, f"bit {bit} flipped", path, _changed(_flip(bit)), _harmless_flip(kind, content, bit))
        if path.endswith(".json"):
            yield from _fields_of(kind, path, json.loads(content))

    for kind, folder in sample.folders().items():
        yield from _folder_damages(kind, folder)


def _folder_damages(kind: str, folder: str) -> Iterator[Damage]:
    """What lies in the place of a folder, and what lies in one that does not belong there."""
    for name in ("a pipe", "a link to nothing", "a link to itself", "a link to /dev/zero"):
        yield Damage(kind, name, folder, _in_place_of_folder(PLACES[name]), HARMLESS_FOLDERS.get(kind, ""))
    yield Damage(kind, "a file", folder, _in_place_of_folder(lambda path: None), HARMLESS_FOLDERS.get(kind, ""))
    for name in STRANGE_NAMES:
        reason = HARMLESS_STRANGERS.get(kind, "") or ("hidden: somebody's scratch" if name.startswith(b".") else "")
        place = os.fsdecode(os.fsencode(folder) + b"/" + name) if folder else os.fsdecode(name)
        for what, make in STRANGERS.items():
            yield Damage(kind, f"{what} called {name!r} in it", place, make, reason)


def _in_place_of_folder(spoil: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        shutil.rmtree(path)
        path.write_text("no folder")
        spoil(path)

    return replace


def _nested(path: Path) -> None:
    """Folders in folders, beyond what Python can follow by calls."""
    here = os.open(path.parent, os.O_RDONLY)
    name = os.fsencode(path.name)
    for _ in range(600):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, name = inner, b"a"
    os.close(here)


STRANGE_NAMES = (
    b"strange", b".strange", b"\xff\xfe", b"a \n\tb", b"\x1b[2J", b"K" * 200, b"-", b"0" * 64 + b"-1",
    b"0" * 64 + b"-01", b"0" * 64 + b".01", b"0" * 64 + b"-\xc2\xb2",
    b"0" * 64 + b"-" + b"9" * 60, b"0" * 64 + b".\xd9\xa3",
)  # fmt: skip
STRANGERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text("x"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "nested folders": _nested,
    "a link to /": lambda path: path.symlink_to("/"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to the store": lambda path: path.symlink_to(_store_of(path)),
}
LOSES_SCORES = ("folder of cells", "folder of a shelf")
HARMLESS_FOLDERS = {
    "folder of what was set aside": "nothing rests on it",
}
HARMLESS_STRANGERS = {
    "folder of what was set aside": "nothing rests on it",
    "folder of a run": "executors keep files of their own there",
}


def _harmless_place(kind: str, name: str) -> str:
    if name == "missing":
        return {
            "note of a failure": "the cell counts as missing, as `--retry-failed` has it, and is made",
            "lease": "nobody holds anything then",
            "checkpoint": "a run starts earlier",
            "events of a job": EPHEMERAL["events of a job"],
            "log of a job": EPHEMERAL["log of a job"],
        }.get(kind, "")
    return ""


def _harmless_content(kind: str, name: str) -> str:
    return EPHEMERAL.get(kind, "")


def _harmless_flip(kind: str, content: bytes, bit: int) -> str:
    if kind in EPHEMERAL:
        return EPHEMERAL[kind]
    with contextlib.suppress(ValueError):
        if json.loads(_flip(bit)(content)) == json.loads(content):
            return "it means the same: 1e-05 is 1E-05"
    return ""


def _fields_of(kind: str, path: str, value: dict) -> Iterator[Damage]:
    """Each field missing, twice, and of each other value: as it happens, and with a checksum that fits."""
    for place in _places(value):
        field = ".".join(map(str, place))
        yield Damage(kind, f"no {field}", path, _rewritten(lambda whole, at=place: _without(whole, at)))
        yield Damage(kind, f"{field} twice", path, lambda file, at=place: _doubled(file, at))
        for name, other in OTHER_VALUES.items():
            if json.dumps(_at(value, place)) == json.dumps(other):
                continue
            if name in FEW or CHECKSUM not in value:  # the checksum finds all alike
                yield Damage(kind, f"{field} is {name}", path, _rewritten(_putting(place, other)))
            if CHECKSUM in value and place[0] != CHECKSUM:
                yield Damage(
                    kind, f"{field} is {name}{FITS}", path, _rewritten(_putting(place, other), fits=True), FREE
                )


def _putting(place: tuple, other: object) -> Callable[[dict], dict]:
    return lambda whole: _with(whole, place, other)


def _places(value: object, before: tuple = ()) -> Iterator[tuple]:
    """Where values lie; of lists, the first."""
    parts = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*before, key)
        yield from _places(part, (*before, key))


def _at(value: object, place: tuple) -> object:
    for key in place:
        value = value[key]
    return value


def _with(value: dict, place: tuple, new: object) -> dict:
    _at(value, place[:-1])[place[-1]] = new
    return value


def _without(value: dict, place: tuple) -> dict:
    del _at(value, place[:-1])[place[-1]]
    return value


def _rewritten(change: Callable[[dict], dict], fits: bool = False) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        whole = change(json.loads(path.read_bytes()))
        if fits:
            whole.pop(CHECKSUM)
            with contextlib.suppress(ValueError):  # NaN has none
                whole = with_checksum(whole)
        path.write_text(json.dumps(whole, indent=1, sort_keys=True))

    return rewrite


def _doubled(path: Path, place: tuple) -> None:
    """The same name once more in the object where it stands."""
    whole = json.loads(path.read_bytes())
    if isinstance(place[-1], int):
        _with(whole, place, [_at(whole, place)] * 2)
        path.write_text(json.dumps(whole))
        return
    mark = "the same name once more"
    _at(whole, place[:-1])[mark] = _at(whole, place)
    path.write_text(json.dumps(whole).replace(json.dumps(mark), json.dumps(place[-1])))


# --- what the commands make of it -------------------------------------------------------------------------------------


def complaints(sample: Sample, damage: Damage, copy: Path, thorough: bool = True) -> tuple[bool, list[str]]:
    """Whether `verify` names a damage, and what is wrong with what the commands make of it."""
    _remove(copy.parent)
    shutil.copytree(sample.store, copy)
    path = copy / damage.path
    damage.spoil(path)
    wrong = []
    verified = command(wrong, "results", "verify", "--store", copy)
    is_named = verified is not None and verified.exit_code == 1 and plain(str(path)) in verified.stdout
    if not is_named and not damage.harmless:
        wrong.append(f"verify does not name it: {verified and verified.output}")
    for words in _readers(copy):
        result = command(wrong, *words)
        # Scores are lost with their folder; and what an identity that was made up stands for, nobody can say.
        may_refuse = words[0] == "compare" and (damage.kind in LOSES_SCORES or FITS in damage.name)
        if result is not None and result.exit_code != 0 and not (may_refuse and result.exit_code == 2):
            wrong.append(f"{words[0]}: {result.output.strip()[-300:]}")
    if thorough:
        wrong += _run_complaints(sample, copy)
    return is_named, wrong


def _remove(folder: Path) -> None:
    """However deep it is nested."""
    if folder.exists():
        subprocess.run(["rm", "-rf", folder], check=True)


def _readers(copy: Path) -> Iterator[list[object]]:
    yield ["results", "list", "--store", copy]
    yield ["results", "list", "--json", "--store", copy]
    yield ["status", "--store", copy]
    yield ["status", "--json", "--store", copy]
    yield ["compare", copy, "--by", "pool", "--baseline", POOLS[0], "--format", "json"]


def _run_complaints(sample: Sample, copy: Path) -> list[str]:
    """What is wrong with what the run and the report make of it: one of the two students at least can be made."""
    wrong: list[str] = []
    page = copy.parent / "page.html"
    report = command(wrong, "report", copy, "--output", page)
    if report is not None and report.exit_code != 0:
        wrong.append(f"report: {report.output.strip()[-300:]}")
    before = _folders(copy)
    run = command(wrong, "run", *sample.words(copy), "--json")
    if run is not None and (run.exit_code not in (0, 1) or _folders(copy) <= before):
        wrong.append(f"run makes nothing: {run.exit_code} {run.output.strip()[-400:]}")
    return wrong


def _folders(store: Path) -> int:
    return sum(1 for path in store.glob("cells/??/*-*") if path.is_dir())


def command(wrong: list[str], *words: object):
    """What a command gives; None if it raises or hangs, which is wrong."""
    signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        result = ddbench(*words)
    except HangError:
        wrong.append(f"{words[0]} hangs")
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        wrong.append(f"{words[0]} raises {result.exception!r:.300}")
        return None
    return result


def _hang(_number: int, _frame: object) -> None:
    raise HangError


@contextlib.contextmanager
def hasty() -> Iterator[None]:
    """Nobody waits: not for a second look, nor for a holder of whom nothing is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "SECOND_LOOK", 0.0)
        patch.setattr(Leases, "stale_after", 0.05)
        patch.setenv("DDBENCH_EXECUTOR", "inline")
        patch.setenv("COLUMNS", "5000")
        yield


def main() -> int:
    """Make all of them, and print how many are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only of damages whose name holds this")
    parser.add_argument("--sample", type=int, help="so many, drawn at random, in place of all")
    parser.add_argument("--thorough", type=float, default=1.0, help="the part for which run and report are tried too")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    draw, counts, begun = random.Random(chosen.seed), Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, hasty():
        sample = make_sample(Path(folder))
        chosen_damages = [damage for damage in damages(sample) if chosen.only in str(damage)]
        if chosen.sample:
            chosen_damages = draw.sample(chosen_damages, min(chosen.sample, len(chosen_damages)))
        for number, damage in enumerate(chosen_damages, 1):
            thorough = draw.random() < chosen.thorough
            is_named, wrong = complaints(sample, damage, Path(folder) / "copy" / "store", thorough)
            counts["named" if is_named else "harmless" if damage.harmless else "missed"] += 1
            counts["tried with run and report"] += thorough
            if wrong:
                counts["wrong"] += 1
                print(f"{damage} ({damage.path})", *wrong, sep="\n    ", flush=True)
            if number % 200 == 0:
                print(
                    f"... {number} of {len(chosen_damages)}, {time.monotonic() - begun:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    summary = ", ".join(
        f"{counts[name]} {name}" for name in ("named", "harmless", "missed", "tried with run and report")
    )
    print(f"{len(chosen_damages)} damages: {summary}; {counts['wrong']} stop or hang something or are missed")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
