"""Failures: cells that could not be made, noted with their reasons so that they are tried again only on request."""

import dataclasses
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import PluginError, error_line
from harness.store.files.folders import FAILURES, entries_of, set_aside
from harness.store.files.reading import DamagedFile, digest_of, kind_at, open_plain, read_checked, with_checksum
from harness.store.records import KEY
from harness.store.store_errors import cannot
from harness.system.clock import now
from harness.system.whole_files import write_whole

UNREADABLE = "unreadable"
_FIELDS = ("key", "kind", "label", "reason", "at", "host")
_LOG_DIGEST = "log"
_MOST_NOTE, _MOST_TEXT = 2**24, 2**20
_NAME = re.compile(rf"({KEY})\.(json|log)")
_AGAIN = "`ddbench run --retry-failed` makes the cell again"


@dataclass(frozen=True)
class Failure:
    """A cell that could not be made.

    Attributes:
        kind: the kind of the cell.
        label: name of the cell, for people.
        reason: one line.
        text: a traceback, or the end of a log.
        at: the time, by the clock of the host.
        host: name of the machine.
    """

    key: str
    kind: str
    label: str
    reason: str
    text: str
    at: str = field(default_factory=now)
    host: str = field(default_factory=socket.gethostname)

    @property
    def is_unreadable(self) -> bool:
        """Whether the failure's note is damaged, which the reason then says."""
        return self.kind == UNREADABLE


class Failures:
    """The failures of one store: ``failures/KEY.json``, and ``KEY.log`` with the text.

    What is noted stays when the cell is made after all, as history; then it no longer counts.
    """

    def __init__(self, store: Path) -> None:
        self._store, self.folder = store, store / FAILURES

    def note(self, failure: Failure) -> Path:
        """Note a failure in place of an earlier one of the same cell, and return the file with its text.

        Raises:
            StoreError: the store cannot be written.
        """
        fields = {name: _writable(text) for name, text in dataclasses.asdict(failure).items()}
        text, log = fields.pop("text"), self.log(failure.key)
        note = with_checksum({**fields, _LOG_DIGEST: hashlib.sha256(text.encode()).hexdigest()})
        try:
            self.folder.mkdir(exist_ok=True)
            # First the old note goes, last the new one comes: whenever this is killed, no note has the text of another.
            self._remove(failure.key)
            write_whole(log, text)
            write_whole(self._note(failure.key), json.dumps(note, indent=1))
        except OSError as error:
            raise cannot("write to", self._store, error) from None
        return log

    def get(self, key: str) -> Failure | None:
        """Return the failure of a cell; None if it has not failed."""
        # A damaged note counts as a failure too: to try again unasked could repeat days of work that are known to fail.
        try:
            note = self._read(key)
        except DamagedFile as damage:
            return Failure(key, UNREADABLE, key, f"{damage}: {_AGAIN}", self._text(key), "", "")
        return None if note is None else Failure(**{name: note[name] for name in _FIELDS}, text=self._text(key))

    def forget(self, key: str) -> None:
        """Forget a failure, so that the cell is tried again."""
        # The text stays until another overwrites it: it may be all that is left of what went wrong.
        try:
            self._remove(key)
        except OSError as error:
            raise cannot("write to", self._store, error) from None

    def all(self) -> Iterator[Failure]:
        """Yield every failure by key, also those of cells that were made afterwards."""
        for key in self.keys():
            failure = self.get(key)
            if failure:
                yield failure

    def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys of failed cells that begin with a prefix.

        Raises:
            StoreError: the folder cannot be read.
        """
        try:
            names = [_NAME.fullmatch(entry.name) for entry in entries_of(self.folder)]
        except OSError as error:
            raise cannot("read", self._store, error) from None
        return [name[1] for name in names if name and name[2] == "json" and name[1].startswith(prefix)]

    def log(self, key: str) -> Path:
        """Return the file with the text of a failure."""
        return self.folder / f"{key}.log"

    def damages(self, name: str) -> Iterator[str]:
        """Yield what is wrong with an entry of the folder, each with the remedy."""
        path, parts = self.folder / name, _NAME.fullmatch(name)
        if parts is None:
            yield f"{path} does not belong in a store: move it away"
            return
        try:
            if parts[2] == "log":
                with open_plain(path):
                    return
            yield from self._altered_log(parts[1])
        except FileNotFoundError:
            return  # somebody has removed it meanwhile
        except DamagedFile as damage:
            yield f"{damage}: {'move it away' if parts[2] == 'log' else _AGAIN}"

    def _altered_log(self, key: str) -> Iterator[str]:
        note, log = self._read(key), self.log(key)
        if note is None or _LOG_DIGEST not in note:
            return
        try:
            if digest_of(log) != note[_LOG_DIGEST]:
                yield f"{log} was altered: {_AGAIN}"
        except FileNotFoundError:
            yield f"{log} is missing: {_AGAIN}"
        except DamagedFile:
            return  # reported when the log itself is checked

    def _read(self, key: str) -> dict[str, Any] | None:
        """Return the note of a failure; None if there is none.

        Raises:
            DamagedFile: it cannot be read, or is of another cell.
        """
        path = self._note(key)
        try:
            note = read_checked(path, _FIELDS, _MOST_NOTE)
        except FileNotFoundError:
            return None
        if wrong := [name for name in (*_FIELDS, _LOG_DIGEST) if not isinstance(note.get(name, ""), str)]:
            raise DamagedFile(path, f"its {wrong[0]} is not text")
        if note["key"] != key:
            raise DamagedFile(path, f"it is of another cell, {note['key']!r:.80}")
        return note

    def _remove(self, key: str) -> None:
        note = self._note(key)
        # unlink() cannot remove a folder, and what somebody put there is not ours to delete.
        if kind_at(note) == "a folder":
            set_aside(self._store, note)
        else:
            note.unlink(missing_ok=True)

    def _note(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _text(self, key: str) -> str:
        """Return the text of a failure, or its end if it is long."""
        try:
            with open_plain(self.log(key)) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_TEXT))
                return file.read(_MOST_TEXT).decode(errors="replace")
        except (FileNotFoundError, DamagedFile):
            return ""


def _writable(text: str) -> str:
    """Return a text with escapes for what UTF-8 cannot write."""
    # Names of files in a message may hold bytes of no encoding, which Python keeps as surrogates.
    return text.encode(errors="backslashreplace").decode()


def reason_of(error: BaseException) -> str:
    """Return the reason of a failure in one line, with advice if memory ran out."""
    reason = error_line(error)
    if isinstance(error, PluginError):  # the message names the plugin and what is wrong; the class adds nothing
        reason = reason.partition(": ")[2]
    kinds = {kind.__name__ for kind in type(error).__mro__}  # torch is not imported for its name
    less = "try a smaller batch or slice (an option of the method or evaluator)"
    if "OutOfMemoryError" in kinds:
        what = reason.partition(". GPU ")[0].rstrip(".")
        return f"{what}: {less}, --precision bf16 or tf32, or fewer --students at once"
    if "MemoryError" in kinds or "can't allocate memory" in reason:
        return f"{reason}: {less}, or fewer --students at once"
    return reason
