"""Options set for a component by its name, wherever it is used: ``--set mtt.experts=5``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import PluginError, UsageError, did_you_mean
from harness.plugins.registry import KINDS as EVERY_KIND
from harness.plugins.registry import Entry, Registry
from harness.types.names import Name, count_variants, parse_name

KINDS = tuple(kind for kind in EVERY_KIND if kind != "format")
"""Kinds whose components a run uses; options of a format belong to one file, in brackets after --from."""


@dataclass(frozen=True)
class SetOptions:
    """Options set by component, with values as text; those in brackets override them, and they override defaults."""

    by_name: Mapping[str, Mapping[str, str]]
    used: set[str] = field(default_factory=set)
    """Names of the components that were looked up and are there."""

    @classmethod
    def read(cls, texts: Sequence[str], registry: Registry) -> "SetOptions":
        """Parse ``COMPONENT.OPTION=VALUE`` and check that there is such an option.

        Raises:
            UsageError: a text cannot be parsed, or names no component or no option of it.
        """
        by_name: dict[str, dict[str, str]] = {}
        for text in texts:
            component, option, value = _parts(text)
            _check(component, option, registry)
            by_name.setdefault(component, {})[option] = value
        return cls(by_name)

    def of(self, entry: Entry) -> dict[str, str]:
        """Return the options set for a component: under its name, or under that with its distribution."""
        names = [name for name in (entry.name, f"{entry.provider}:{entry.name}") if name in self.by_name]
        if not names:
            return {}
        known = entry.load().Options.fields_by_name()
        self.used.update(names)
        merged = {option: value for name in names for option, value in self.by_name[name].items()}
        # Components of two kinds may share a name: each takes the options that it knows.
        return {option: value for option, value in merged.items() if option in known}

    def complete(self, name: Name, entry: Entry, defaults: Mapping[str, str]) -> Name:
        """Return the name with the options set for the component, and beneath them ``defaults``."""
        return name.with_defaults(self.of(entry)).with_defaults(dict(defaults))

    @property
    def unused(self) -> Iterator[str]:
        """Names of components for which options were set, and which nothing here uses."""
        return (name for name in self.by_name if name not in self.used)


def _parts(text: str) -> tuple[str, str, str]:
    left, equals, value = text.partition("=")
    component, dot, option = left.strip().rpartition(".")
    if not (equals and dot and component and option and value.strip()):
        raise UsageError(f"--set {text}: write --set COMPONENT.OPTION=VALUE, say --set mtt.experts=5")
    # Parsed as it would be in brackets, so that one grammar decides what a value is.
    typed = f"{component}[{option}={value}]"
    if count_variants(typed)[1] > 1:
        raise UsageError(f"--set {text}: a sweep belongs to a name: {typed}")
    return component, option, parse_name(typed).options[0][1]


def _check(component: str, option: str, registry: Registry) -> None:
    provider, _, short = component.rpartition(":")
    every = [entry for kind in KINDS for entry in registry.of_kind(kind)]
    entries = [entry for entry in every if entry.name == short and provider in ("", entry.provider)]
    if not entries:
        known = did_you_mean(component, {entry.name for entry in every})
        raise UsageError(f"--set {component}.{option}: there is no component {component!r}: {known}")
    options: set[str] = set()
    for entry in entries:
        try:
            options |= set(entry.load().Options.fields_by_name())
        except PluginError as error:
            raise UsageError(f"--set {component}.{option}: {error}") from error
    if option not in options:
        known = did_you_mean(option, options) if options else "it takes no options"
        raise UsageError(f"--set {component}.{option}: {component!r} has no option {option!r}: {known}")
