"""Runs the contracts of every component that a plugin brings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import DDBenchError, UsageError, did_you_mean
from harness.plugins.discovery import Plugins
from harness.plugins.registry import Entry
from harness.testing.architectures import ArchitectureContract
from harness.testing.contract import Contract, Outcome
from harness.testing.datasets import DatasetContract
from harness.testing.evaluators import EvaluatorContract
from harness.testing.executors import ExecutorContract
from harness.testing.formats import FormatContract
from harness.testing.methods import MethodContract
from harness.testing.metrics import MetricContract
from harness.testing.parametrisations import ParametrisationContract
from harness.testing.pools import PoolContract
from harness.testing.reports import ReportContract
from harness.testing.trackers import TrackerContract
from harness.types.names import parse_name

CONTRACTS: dict[str, type[Contract]] = {
    contract.kind: contract
    for contract in (
        MethodContract,
        PoolContract,
        ParametrisationContract,
        EvaluatorContract,
        ArchitectureContract,
        DatasetContract,
        FormatContract,
        ReportContract,
        ExecutorContract,
        TrackerContract,
        MetricContract,
    )
}
_LOADS = "The class loads, and the options given are taken"


@dataclass(frozen=True)
class Checkable:
    """A component to check: its entry, and its name with the options that were typed."""

    entry: Entry
    name: str

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the outcome of every check of its kind's contract, or of one alone if nothing can be checked."""
        try:
            options = self.entry.load().Options
            needed = [key for key, field in options.fields_by_name().items() if field.is_required()]
            options.from_name(parse_name(self.name))
        except DDBenchError as error:
            # A required option that nobody typed is no fault of the plugin.
            lacking = isinstance(error, UsageError) and "[" not in self.name and needed
            yield Outcome(_LOADS, "skipped" if lacking else "FAILED", str(error))
            return
        contract = CONTRACTS[self.entry.kind]()
        contract.name = self.name
        yield from contract.outcomes()


def checkables(loaded: Plugins, plugin: str, names: Sequence[str]) -> list[Checkable]:
    """Return the components of a plugin, or only those that are named, each with the options that were typed.

    Without any, a method is checked with its own `check_options`.

    Args:
        loaded: all plugins.
        plugin: the name of an entry point.
        names: names of components of that plugin, with options in brackets; empty for all components.

    Raises:
        UsageError: the plugin has no such component.
    """
    entries = [entry for entry in loaded.registry.entries if entry.plugin == plugin]
    if not names:
        return [Checkable(entry, _name(loaded, entry) + _usual_options(entry)) for entry in entries]
    return [component for text in names for component in _named(loaded, plugin, entries, text)]


def _named(loaded: Plugins, plugin: str, entries: Sequence[Entry], text: str) -> Iterator[Checkable]:
    """Yield the components of a name: one name may stand for a method and for a pool."""
    wanted = parse_name(text)
    short = wanted.name.rpartition(":")[2]
    mine = [entry for entry in entries if entry.name == short]
    if not mine:
        known = did_you_mean(short, {entry.name for entry in entries})
        raise UsageError(f"plugin {plugin!r} has no component {short!r}: {known}")
    options = text.strip()[len(wanted.name) :]
    return (Checkable(entry, _name(loaded, entry) + (options or _usual_options(entry))) for entry in mine)


def _usual_options(entry: Entry) -> str:
    """Return the options by which a component is checked if none are typed, in brackets; empty for its defaults."""
    try:
        options = getattr(entry.load(), "check_options", "")
    except DDBenchError:  # the check that it loads says why it does not
        return ""
    return f"[{options}]" if isinstance(options, str) and options else ""


def _name(loaded: Plugins, entry: Entry) -> str:
    return f"{entry.provider}:{entry.name}" if loaded.registry.ambiguous(entry) else entry.name
