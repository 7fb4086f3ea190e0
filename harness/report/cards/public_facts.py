"""What of a set's provenance may be shared: facts that are listed here, with paths and e-mail addresses left out."""

import contextlib
import getpass
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.report.cards.evaluations import EVALUATIONS, Evaluation
from harness.store.records import StoredSet
from harness.types.distilled import DistilledSet
from harness.types.formats import SCORES
from harness.types.names import Name, name_or_text

PATH = "PATH"
"""Stands for a path on the machine of whoever shares the set."""
_FROM_PROVENANCE = (
    "dataset", "ipc", "iterations", "method", "pool", "seed", "distillation", "status", "cell", "record", "versions",
    "finished", "format", "entry", "entries", "label_temperature", "recipe", "settings", "method_options", "draws",
    "training_images", "hold_out", "precision", "compute", SCORES,
)  # fmt: skip
"""All that is taken from a set's provenance: whatever else a file or a plugin writes there stays at home."""
_COMPUTE = ("device", "machine", "threads", "torch_version", "compilation")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
_STARTS = ("/", "~", "./", "../", "file:")


def shareable(distilled: DistilledSet, evaluations: Sequence[Evaluation], record: StoredSet | None) -> DistilledSet:
    """Return the set with a provenance that may be read by anybody.

    Args:
        distilled: the set, whose tensors and class names stay as they are.
        evaluations: how good it is.
        record: its record; None if it comes from a file.
    """
    known: dict[str, Any] = {key: value for key, value in distilled.provenance.items() if key in _FROM_PROVENANCE}
    if record is not None:
        result = record.result.as_json()
        known |= {key: result[key] for key in ("settings", "draws", "training_images", "hold_out") if key in result}
        trajectory = record.identity.trajectory
        known |= {"precision": trajectory.precision, "compute": record.provenance.compute.as_json()}
        known |= {"method_options": trajectory.method.get("options", {})}
    if isinstance(known.get("compute"), Mapping):
        known["compute"] = {key: value for key, value in known["compute"].items() if key in _COMPUTE}
    if evaluations:
        # They say more than the lists by architecture, which older versions read.
        known[EVALUATIONS] = [row.model_dump() for row in evaluations]
    return replace(distilled, provenance=_without_paths(known))


def _without_paths(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {_without_paths(key): _without_paths(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(part) for part in value]
    return public_text(value) if isinstance(value, str) else value


def public_text(text: str) -> str:
    """Return a text of a record without paths and e-mail addresses; in a component's name, option by option.

    ``folder[path=/home/jane/birds,like=cifar10]`` becomes ``folder[path=PATH,like=cifar10]``, which still can be typed.
    """
    if text.count("[") and text.endswith("]"):
        name = name_or_text(text)
        if name.options:
            return str(Name(name.name, tuple((key, public_text(value)) for key, value in name.options)))
    if _is_path(text):
        return PATH
    return _ADDRESS.sub("ADDRESS", text)


def _is_path(text: str) -> bool:
    """Return whether a text names a place on this machine; a name with a slash, as of a repository, need not."""
    if text.startswith(_STARTS) or "\\" in text or "://" in text:
        return True
    try:
        return "/" in text and Path(text).exists()
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Private:
    """Texts that must not leave this machine.

    Attributes:
        places: paths, which may stand nowhere.
        names: by what they are, names that no fact may contain as a word of its own.
    """

    places: tuple[str, ...]
    names: Mapping[str, str]

    @classmethod
    def here(cls, *places: Path) -> "Private":
        """Return what is private on this machine: home and working folder, the places, and the names of both."""
        own = [Path.cwd(), *(place.absolute() for place in places)]
        with contextlib.suppress(RuntimeError):  # not every user has a home folder
            own.append(Path.home())
        user = ""
        with contextlib.suppress(KeyError, OSError):  # nor a name, in a container
            user = getpass.getuser()
        names = {"the user's name": user, "the host's name": socket.gethostname()}
        # A folder of two letters is in every text.
        shown = (str(place) for place in own)
        return cls(tuple(text for text in shown if len(text) > 3), {what: name for what, name in names.items() if name})

    def check(self, distilled: DistilledSet, files: Mapping[str, bytes]) -> None:
        """Refuse to share what holds a private text: the last check, behind the list of what is taken.

        Args:
            distilled: the set, as `shareable` returns it.
            files: the content of each file by its name.

        Raises:
            DataError: a file has a path of this machine, or a fact the user's or host's name; the line says where.
        """
        for name, content in files.items():
            for place in self.places:
                if place.encode() in content or json.dumps(place)[1:-1].encode() in content:
                    raise DataError(f"{name} would contain the path {place}: nothing was uploaded")
        facts = {"provenance": dict(distilled.provenance), "classes": list(distilled.classes)}
        for where, text in _texts(facts):
            for what, private in self.names.items():
                if re.search(rf"(?<![\w.-]){re.escape(private)}(?![\w.-])", text):
                    raise DataError(f"{where} contains {what}, {private!r}: nothing was uploaded; rename what it names")


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Yield every text in JSON with the place where it stands."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(part, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, where)
    elif isinstance(value, str):
        yield where, value
