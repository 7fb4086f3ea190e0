"""Failures: cells that could not be made, kept with their reasons so that they are tried again only on request."""

import dataclasses
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.experiment.clock import now
from harness.types.errors import PluginError, error_line
from harness.types.files import cannot, write_whole

_UNREADABLE = "what is noted of its failure cannot be read"


@dataclass(frozen=True)
class Failure:
    """A cell that could not be made.

    Attributes:
        kind: of the cell.
        label: the cell, for people.
        reason: one line.
        text: a traceback, or the end of a log.
        at: when, by the clock of the host.
        host: where.
    """

    key: str
    kind: str
    label: str
    reason: str
    text: str
    at: str = field(default_factory=now)
    host: str = field(default_factory=socket.gethostname)


class Failures:
    """The failures of one store: ``failures/KEY.json``, and ``KEY.log`` with the text.

    What is noted stays when the cell is made after all, as history; then it no longer counts.
    """

    def __init__(self, store: Path) -> None:
        self._store, self.folder = store, store / "failures"

    def note(self, failure: Failure) -> Path:
        """Keep what is known of a failed cell, in place of what was; returns the file with the text.

        Raises:
            StoreError: the store cannot be written.
        """
        told = dataclasses.asdict(failure)
        log = self.log(failure.key)
        try:
            self.folder.mkdir(exist_ok=True)
            write_whole(log, told.pop("text"))
            write_whole(self._note(failure.key), json.dumps(told, indent=1))
        except OSError as error:
            raise cannot("write to", self._store, error) from None
        return log

    def get(self, key: str) -> Failure | None:
        """What is noted of a cell; None where it has not failed."""
        try:
            content = self._note(key).read_text()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot("read", self._store, error) from None
        try:
            return Failure(**{**json.loads(content), "key": key, "text": self._text(key)})
        except (ValueError, TypeError):
            return Failure(key, "unreadable", key, _UNREADABLE, self._text(key), "", "")

    def forget(self, key: str) -> None:
        """Have a cell tried again. The text stays until it is overwritten."""
        try:
            self._note(key).unlink(missing_ok=True)
        except OSError as error:
            raise cannot("write to", self._store, error) from None

    def all(self) -> Iterator[Failure]:
        """Every failure by key, of cells that were made afterwards too."""
        for key in self.keys():
            failure = self.get(key)
            if failure:
                yield failure

    def keys(self, prefix: str = "") -> list[str]:
        """Their keys, sorted."""
        found = (path.name for path in self.folder.glob(f"{prefix}*.json"))
        return sorted(name.removesuffix(".json") for name in found if not name.startswith("."))

    def log(self, key: str) -> Path:
        """The file with the text of a failure."""
        return self.folder / f"{key}.log"

    def _note(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _text(self, key: str) -> str:
        try:
            return self.log(key).read_text(errors="replace")
        except OSError:
            return ""


def reason_of(error: BaseException) -> str:
    """One line for what a cell failed by; where memory ran out, with what takes less."""
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
