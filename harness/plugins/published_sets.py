"""The registry of published distilled sets: TOML files that plugins name by the hook `published_sets`."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import UsageError, did_you_mean
from harness.plugins.discovery import Plugins
from harness.plugins.guard import guarded
from harness.types.formats.published_set import PublishedSet, StatedAccuracy

HOOK = "published_sets"
_FIELDS = {field.name for field in fields(PublishedSet)} - {"name", "stated"} | {"accuracy"}


@dataclass(frozen=True)
class PublishedSets:
    """All published sets that plugins know.

    Attributes:
        sets: by name.
        complaints: why a plugin's file was not taken, a line each.
    """

    sets: Mapping[str, PublishedSet]
    complaints: tuple[str, ...]

    def named(self, name: str) -> PublishedSet:
        """Return the set of a name.

        Raises:
            UsageError: there is none.
        """
        if name not in self.sets:
            more = f"; {self.complaints[0]}" if self.complaints else ""
            known = did_you_mean(name, self.sets)
            raise UsageError(f"there is no published set {name!r}: {known} (`ddbench published`){more}")
        return self.sets[name]


def published_sets(plugins: Plugins) -> PublishedSets:
    """Return the published sets of all plugins; a file that cannot be read costs only its own."""
    sets: dict[str, PublishedSet] = {}
    complaints = []
    for implementation in getattr(plugins.manager.hook, HOOK).get_hookimpls():
        try:
            with guarded(f"{HOOK}() of {implementation.plugin_name} raised"):
                path = Path(implementation.function())
            for published in read_published_sets(path):
                if published.name in sets:
                    raise UsageError(f"{path.name}: {published.name} is in another plugin's file already")
                sets[published.name] = published
        except Exception as error:
            complaints.append(f"published sets of {implementation.plugin_name}: {error}")
    return PublishedSets(sets, tuple(complaints))


def read_published_sets(path: Path) -> Iterator[PublishedSet]:
    """Yield the sets in a TOML file: a table for each, whose name is the set's.

    Its keys are the fields of `PublishedSet`; ``accuracy`` maps architectures to a mean and a standard deviation in
    percent, the latter of which may be missing.

    Raises:
        UsageError: the file cannot be read, or a table of it is not valid.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    for name, table in tables.items():
        try:
            yield _published(name, table)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{path.name}: {name}: {error}") from None


def _published(name: str, table: Any) -> PublishedSet:  # noqa: ANN401
    if not isinstance(table, Mapping):
        raise ValueError("it is not a table")
    if unknown := sorted(set(table) - _FIELDS):
        raise ValueError(f"there is no key {unknown[0]!r}: {did_you_mean(unknown[0], _FIELDS)}")
    missing = sorted({"file", "source", "dataset"} - set(table))
    if missing:
        raise ValueError(f"it lacks the key {missing[0]!r}")
    stated = {architecture: _stated(numbers) for architecture, numbers in table.get("accuracy", {}).items()}
    return PublishedSet(name, stated=stated, **{key: value for key, value in table.items() if key != "accuracy"})


def _stated(numbers: Any) -> StatedAccuracy:  # noqa: ANN401
    values = numbers if isinstance(numbers, list) else [numbers]
    if not 1 <= len(values) <= 2 or not all(isinstance(value, int | float) for value in values):
        raise ValueError(f"accuracy {numbers!r} is neither a mean nor [mean, standard deviation]")
    mean, *std = (value / 100 for value in values)
    return StatedAccuracy(mean, *std)
