"""The contract of file formats."""

import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from harness.errors import DataError, DDBenchError
from harness.plugins.discovery import plugins
from harness.plugins.set_formats import Writer, read_content
from harness.plugins.stored_sets import open_encoding, opened
from harness.testing.contract import Contract, require, same_bits
from harness.testing.small import small_problem, small_set
from harness.types.distilled import DistilledSet
from harness.types.formats import Content, Reading, SetFormat
from harness.types.formats.own import tensors_of
from harness.types.problem import Problem

ROUNDED = 0.6 / 255
"""How far pixels may be off if a format says that something is lost: half a level of 8 bits, and rounding."""
_CUTS, _FLIPS = 8, 12
"""Damages that are tried of each file: places where it ends early, and bytes that are changed."""
_ran: list[str] = []
"""What the code in hostile pickles has noted; it belongs to the process, since a pickle names a global function."""


def note_run(where: str) -> None:
    """Note that the code in a hostile file was run."""
    _ran.append(where)


class Hostile:
    """An object whose pickle calls `note_run` when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return note_run, ("a pickle",)


class FormatContract(Contract):
    """The obligations of every format, on small sets that it writes, or on `example` if it only reads.

    Attributes:
        example: a file or folder of the format, for one that is only read; None if there is none at hand.
    """

    kind = "format"
    example: ClassVar[Path | None] = None

    def test_recognises_its_own_files(self) -> None:
        """It recognises its files by name or content, says False of all others, and never raises."""
        with self._folder() as folder:
            if self.writes or self.example:
                require(self.format.recognises(self._example(folder)), "it does not recognise a file of its own")
            for number, content in enumerate((b"", b"\x80\x02.", b"PK\x03\x04", os.urandom(64))):
                for suffix in (*self.format.suffixes, "", ".pt", ".bin"):
                    path = folder / f"junk{number}{suffix}"
                    path.write_bytes(content)
                    answer = self.format.recognises(path)
                    require(isinstance(answer, bool), f"recognises() returns {answer!r:.50}, not True or False")
            for path in (folder, folder / "nothing", *self._of_others(folder)):
                require(not self.format.recognises(path), f"it recognises {path.name}, which is not of its format")

    def test_round_trip(self) -> None:
        """What it writes is read back: the same images and labels, bit for bit if nothing is lost, else to 8 bits."""
        for name, distilled in self._accepted(encoded=False):
            _, read, lost = self._round_trip(distilled)
            self._check_images(name, distilled, read, lost)
            kinds = f"it has {distilled.label_kind} labels, and is read back with {read.label_kind} ones"
            require(read.label_kind == distilled.label_kind, f"{name}: {kinds}: refuse it")

    def test_losses_are_named(self) -> None:
        """What a file does not hold is named when it is written: classes, step size, schedule, preprocessing, ..."""
        for name, distilled in self._accepted(encoded=False):
            distilled = replace(distilled, provenance={"note": "written by the contract kit"})
            content, _, lost = self._round_trip(distilled)
            how = content.preprocessing
            held = {
                "class": content.classes == distilled.classes,
                "step size": content.step_size == distilled.step_size,
                "schedule": content.schedule == distilled.schedule,
                "preprocessing": how is not None and how.identity() == distilled.preprocessing.identity(),
                "provenance": dict(distilled.provenance).items() <= dict(content.provenance).items(),
            }
            for word, is_held in held.items():
                said = is_held or any(word in line for line in lost)
                require(said, f"{name}: {word!r} is not in the file, and write() does not say that it is lost")

    def test_encoded_sets(self) -> None:
        """Of a packed or factorised set it holds the encoding, or says that decoded images are written, or refuses."""
        for name, distilled in self._accepted(encoded=True):
            _, read, lost = self._round_trip(distilled)
            if lost:
                self._check_images(name, distilled, read, lost)
                continue
            whole = read.encoding is not None and same_bits(tensors_of(read), tensors_of(distilled))
            require(whole, f"{name}: nothing is said to be lost, but the encoding is not read back")

    def test_refusals_are_a_line(self) -> None:
        """A set that it cannot hold is refused before anything is written, with a line that says why."""
        refused = [(name, self.format.refusal(distilled)) for name, distilled in self._sets() if self.writes]
        for name, reason in refused:
            line = isinstance(reason, str) and reason.strip() and "\n" not in reason
            require(reason is None or line, f"{name}: refusal() returns {reason!r:.80}, which is not a line")
        if not any(reason for _, reason in refused):
            raise SkipTest("it holds every set, or is only read")

    def test_reading_is_repeatable(self) -> None:
        """Reading twice gives the same bits, and changes nothing on the disk."""
        with self._folder() as folder:
            path = self._example(folder)
            before = _contents(path)
            sets = [self._read(path) for _ in range(2)]
            require(same_bits(*map(tensors_of, sets)), "read twice, a file gives different sets")
            require(_contents(path) == before, "reading changes files")

    def test_damaged_files(self) -> None:
        """A damaged file is read, or refused with a DataError of one line."""
        with self._folder() as folder:
            for suffix in (*self.format.suffixes, ""):
                for content in (*_strange(folder), b"", b"\0" * 64, b"PK\x03\x04" + b"\0" * 60, bytes(range(256))):
                    self._read_or_refuse(_written(folder / f"junk{suffix}", content), "a file of other content")
            if not self.writes and self.example is None:
                return
            whole = self._example(folder)
            for file in _files(whole):
                for described, content in _damages(file.read_bytes()):
                    copy = _copied(whole, folder / "copies" / "damaged")
                    _written(copy / file.relative_to(whole) if whole.is_dir() else copy, content)
                    self._read_or_refuse(copy, f"{file.name} {described}")

    def test_runs_no_code(self) -> None:
        """Code in a file, as a pickle may hold, is not run."""
        with self._folder() as folder:
            places = [folder / f"hostile{suffix}" for suffix in (*self.format.suffixes, "")]
            whole = self._example(folder) if self.writes or self.example else None
            for content in _hostile(folder):
                for place in places:
                    self._check_runs_nothing(_written(place, content), place.name)
                for file in _files(whole) if whole else ():
                    assert whole is not None
                    copy = _copied(whole, folder / "copies" / "hostile")
                    _written(copy / file.relative_to(whole) if whole.is_dir() else copy, content)
                    self._check_runs_nothing(copy, file.name)

    # --- what the checks are made of ---

    @cached_property
    def format(self) -> SetFormat[Any]:
        """The format with its options."""
        format: SetFormat[Any] = self.resolved().make()
        return format

    @property
    def writes(self) -> bool:
        """Whether the format can be written."""
        return self.format.is_written()

    @cached_property
    def problem(self) -> Problem:
        """A problem of three classes, with images of 16x16."""
        return small_problem()

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)

    def _sets(self, encoded: bool | None = None) -> Iterator[tuple[str, DistilledSet]]:
        colour = small_problem(shape=(3, 16, 16), train=4)
        sets = {
            "a grey set": small_set(self.problem, 2),
            "a colour set": small_set(colour, 1),
            "a set with soft labels": small_set(self.problem, 1, soft=True),
            "a set with labels of any values": small_set(self.problem, 1, kind="regression"),
            "a set with a step size": small_set(self.problem, 1, step_size=0.02),
            "a set with a schedule": small_set(self.problem, 1, scheduled=True),
        }
        pixels = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        packing = open_encoding("ddbench:multi-formation[factor=2]", self.problem.shape)
        classes, how = self.problem.classes, self.problem.preprocessing
        packed = {"a packed set": DistilledSet(pixels, torch.arange(3), classes, how, encoding=packing)}
        yield from {**({} if encoded else sets), **(packed if encoded in (None, True) else {})}.items()

    def _accepted(self, *, encoded: bool) -> list[tuple[str, DistilledSet]]:
        if not self.writes:
            raise SkipTest("it is only read")
        sets = [(name, each) for name, each in self._sets(encoded) if self.format.refusal(each) is None]
        if not sets:
            raise SkipTest("it refuses all of these sets")
        return sets

    def _round_trip(self, distilled: DistilledSet) -> tuple[Content, DistilledSet, tuple[str, ...]]:
        with self._folder() as folder:
            path = folder / ".written-under-another-name"
            lost = Writer(self.format)(distilled, path)
            named = path.rename(folder / f"set{next(iter(self.format.suffixes), '')}")
            content = read_content(named, Reading(format=self.name))
            return content, content.completed(opened, distilled.preprocessing, distilled.classes), lost

    def _example(self, folder: Path) -> Path:
        if not self.writes:
            if self.example is None:
                raise SkipTest("it is only read: set `example` in a test of yours to a file of the format")
            return _copied(self.example, folder / "example" / self.example.name)
        path = folder / "example" / f"set{next(iter(self.format.suffixes), '')}"
        path.parent.mkdir(exist_ok=True)
        Writer(self.format)(next(each for _, each in self._accepted(encoded=False)), path)
        return path

    def _of_others(self, folder: Path) -> Iterator[Path]:
        """Write a set in each other format that comes with ddbench, and yield the files."""
        mine = self.resolved().cls
        for entry in plugins().registry.of_kind("format"):
            cls = entry.load() if entry.provider == "ddbench" else mine
            if cls is not mine and cls.is_written():
                path = folder / "others" / f"set{next(iter(cls.suffixes), '')}"
                path.parent.mkdir(exist_ok=True)
                Writer(cls(cls.Options()))(small_set(self.problem), path)
                yield path

    def _read(self, path: Path) -> DistilledSet:
        """Read a file, completed by what a user says: preprocessing and classes, unless the file has its own."""
        content = read_content(path, Reading(format=self.name))
        return content.completed(opened, self.problem.preprocessing, self.problem.classes)

    def _read_or_refuse(self, path: Path, described: str) -> None:
        try:
            self._read(path).check()
        except DataError as error:
            require("\n" not in str(error), f"{described}: the refusal has several lines: {error}")
        except Exception as error:
            raise AssertionError(f"{described}: {type(error).__name__}: {error}; raise a DataError") from error

    def _check_runs_nothing(self, path: Path, described: str) -> None:
        _ran.clear()
        for look in (lambda: self.format.recognises(path), lambda: self._read(path)):
            try:
                look()
            except DDBenchError:
                continue
            except Exception as error:
                raise AssertionError(f"{described}: {type(error).__name__}: {error}; raise a DataError") from error
            finally:
                require(not _ran, f"code in {described} was run: read no pickle; `harness.read_pickled` runs none")

    def _check_images(self, name: str, before: DistilledSet, after: DistilledSet, lost: tuple[str, ...]) -> None:
        (images, labels), (read, read_labels) = _by_class(before), _by_class(after)
        require(read.shape == images.shape, f"{name}: images {tuple(images.shape)} are read as {tuple(read.shape)}")
        require(torch.equal(labels, read_labels), f"{name}: other labels are read than were written")
        pixels = [before.preprocessing.invert(each).clamp(0, 1) for each in (images, read)]
        off = float((pixels[0] - pixels[1]).abs().max())
        require(off <= ROUNDED, f"{name}: pixels differ by up to {off:.3g} after a round trip")
        exact = lost or torch.equal(images, read)
        require(exact, f"{name}: nothing is said to be lost, but images differ after a round trip")


def _by_class(distilled: DistilledSet) -> tuple[Tensor, Tensor]:
    """Return training images and labels, class by class: a format may sort images by their classes."""
    images, labels = distilled.training_data()
    if labels.is_floating_point():
        return images, labels
    order = torch.argsort(labels, stable=True)
    return images[order], labels[order]


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _copied(source: Path, target: Path) -> Path:
    """Copy a file or folder, in place of what lies there; a file keeps its suffix."""
    target = target if source.is_dir() else target.with_suffix(source.suffix)
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    target.parent.mkdir(exist_ok=True)
    return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))


def _files(path: Path) -> list[Path]:
    """Return a file, or a few files of a folder: the first of each suffix."""
    inner = [each for each in sorted(path.rglob("*")) if each.is_file()] if path.is_dir() else [path]
    return list({each.suffix: each for each in reversed(inner)}.values())


def _contents(path: Path) -> dict[str, bytes]:
    """Return the content of a file or folder, and of all that lies beside it."""
    inner = [each for each in path.parent.rglob("*") if each.is_file()]
    return {str(each): each.read_bytes() for each in inner}


def _damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield damaged copies of a file: ended early, or with a byte changed, most of them near the start and the end."""
    size = len(content)
    for part in range(_CUTS):
        yield f"ended after {size * part // _CUTS} of {size} bytes", content[: size * part // _CUTS]
    places = {*range(0, min(size, 64), 8), *range(max(0, size - 64), size, 8), *range(0, size, max(1, size // _FLIPS))}
    for place in sorted(places):
        yield f"with byte {place} changed", content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def _strange(folder: Path) -> Iterator[bytes]:
    """Yield files that are whole, but hold nothing of a set: of torch.save, of NumPy, of safetensors, and JSON."""
    torch.save({}, folder / "saved")
    yield (folder / "saved").read_bytes()
    np.savez(folder / "zipped.npz", strange=np.zeros(3))
    yield (folder / "zipped.npz").read_bytes()
    yield save({"strange": torch.zeros(3)})
    yield b"{}"


def _hostile(folder: Path) -> Iterator[bytes]:
    """Yield files that run code if they are unpickled: a plain pickle, one of torch.save, and an array of objects."""
    yield pickle.dumps(Hostile())
    torch.save({"data": Hostile(), "images": Hostile()}, folder / "saved")
    yield (folder / "saved").read_bytes()
    array = np.empty(2, object)
    array[:] = Hostile()
    with zipfile.ZipFile(folder / "zipped", "w") as archive:
        for name in ("images", "labels", "pixels", "x", "y", "arr_0"):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)
    yield (folder / "zipped").read_bytes()
