"""Names of arms in tables: the shortest texts that tell them apart, and what these leave out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.report.tables.wording import one_line
from harness.types.names import Name, name_or_text


@dataclass(frozen=True)
class ArmNames:
    """Short texts for the names in a table.

    Attributes:
        short: the short text by name; a name without one stands as it is.
        legend: what the short texts leave out, a line each.
    """

    short: Mapping[str, str] = field(default_factory=dict)
    legend: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> str:
        return self.short.get(name, name)


def arm_names(kind: str, names: Iterable[str], labels: Mapping[str, str] | None = None) -> ArmNames:
    """Return the shortest texts that tell names apart: options that all share are left out, the rest by difference.

    Args:
        kind: what the names are of, for the legend.
        names: names with options.
        labels: by name, the label that its author chose, which is taken as it stands.
    """
    chosen = {name: label for name in names if (label := (labels or {}).get(name))}
    parsed = {name: name_or_text(name) for name in dict.fromkeys(names) if name not in chosen}
    shared = _shared(list(parsed.values()))
    short = {**chosen, **(_shortened(parsed) if len(parsed) + len(chosen) > 1 else {name: name for name in parsed})}
    if len(set(short.values())) < len(short):  # their options do not distinguish them
        short, shared = {**chosen, **{name: name for name in parsed}}, ()
    legend = [f"{label}: {name}" for name, label in chosen.items()]
    legend += [f"every {kind}: {', '.join(f'{key}={value}' for key, value in shared)}"] if shared else []
    for name, value in parsed.items():
        rest = str(_without(value, shared))
        if short[name] != name and short[name] != rest:
            legend.append(f"{short[name]}: {rest}")
    return ArmNames({name: one_line(text) for name, text in short.items()}, tuple(map(one_line, legend)))


def _shared(names: Sequence[Name]) -> tuple[tuple[str, str], ...]:
    """Return the options that several names all have, with the same values."""
    if len(names) < 2:
        return ()
    return tuple(option for option in names[0].options if all(option in other.options for other in names[1:]))


def _without(name: Name, options: Sequence[tuple[str, str]]) -> Name:
    return Name(name.name, tuple(option for option in name.options if option not in options))


def _shortened(parsed: Mapping[str, Name]) -> dict[str, str]:
    by_head: dict[str, list[str]] = {}
    for name, value in parsed.items():
        by_head.setdefault(value.name, []).append(name)
    return {
        name: str(short)
        for members in by_head.values()
        for name, short in zip(members, _differing([parsed[name] for name in members]), strict=True)
    }


def _differing(names: Sequence[Name]) -> list[Name]:
    """Return names of one component without the options, at any depth, that all of them share."""
    if len(names) < 2:
        return [Name(name.name) for name in names]
    shared = _shared(names)
    options = [dict(_without(name, shared).options) for name in names]
    for key in options[0]:
        values = [name_or_text(own[key]) if key in own else Name("") for own in options]
        if all(value.options for value in values) and len({value.name for value in values}) == 1:
            for own, value in zip(options, _differing(values), strict=True):
                own[key] = str(value)
    return [Name(name.name, tuple(own.items())) for name, own in zip(names, options, strict=True)]
