"""What plugins have registered, by kind and name; classes are imported when they are first asked for."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from harness.errors import PluginError, UsageError, did_you_mean, error_line
from harness.plugins.guard import PluginFault, guarded, guarded_class
from harness.plugins.last_words import last_words
from harness.plugins.redirection import stdout_to_stderr as stdout_to_stderr
from harness.plugins.source import source_digest
from harness.types.names import Name, parse_name
from harness.types.options import Options

KINDS = ("method", "pool", "evaluator", "architecture", "dataset", "report", "executor")
_BASES = {
    "method": "harness.types.method:Method",
    "pool": "harness.types.pool:Pool",
    "evaluator": "harness.types.evaluator:Evaluator",
    "architecture": "harness.types.network:Architecture",
    "dataset": "harness.types.dataset:Dataset",
    "report": "harness.types.report:Report",
    "executor": "harness.types.executor:Executor",
}
OWN = "ddbench"
"""The distribution of the harness and of the plugin that comes with it."""
_SHOWN = 3
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
C = TypeVar("C")


@dataclass(frozen=True)
class Entry:
    """One registered component, not yet imported."""

    kind: str
    name: str
    target: str
    summary: str
    provider: str
    provider_version: str
    plugin: str = ""
    """The entry point that registered it: a distribution may have several."""

    def load(self) -> type[Any]:
        """Import the class.

        Raises:
            PluginError: it cannot be imported, or is not a complete subclass of its kind's base.
        """
        base = base_of(self.kind)
        try:
            import_ends = last_words(f"{self.kind} {self.name!r} of {self.provider} was imported", self._is_imported)
            with import_ends, guarded("loading it raised"):
                cls = _import(self.target)
                is_class = inspect.isclass(cls) and issubclass(cls, base)
                missing = sorted(getattr(cls, "__abstractmethods__", ()))
                options: Any = getattr(cls, "Options", None)
                has_options = inspect.isclass(options) and issubclass(options, Options)
        except PluginFault as fault:
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.provider} cannot be loaded from {self.target!r}: "
                f"{error_line(fault.error).rstrip(': ')}"
            ) from fault.error
        if not is_class:
            raise PluginError(f"{self.target!r} of {self.provider} is not a subclass of harness.{base.__name__}")
        if missing:
            raise PluginError(f"{self.target!r} of {self.provider} does not define {', '.join(missing)}")
        if not has_options:
            raise PluginError(f"Options of {self.target!r} of {self.provider} is not a subclass of harness.Options")
        return cls  # type: ignore[no-any-return]

    @property
    def _is_imported(self) -> bool:
        return self.provider == OWN or self.target.partition(":")[0] in sys.modules


@dataclass(frozen=True)
class Resolved(Generic[C]):
    """A component with checked options: what a name in brackets stands for.

    Attributes:
        qualified: whether its name needs the distribution's before it, because several plugins claim it.
    """

    entry: Entry
    cls: type[C]
    options: Options
    qualified: bool = False

    @property
    def name(self) -> Name:
        """The component's name with those options that are not at their defaults."""
        name = f"{self.entry.provider}:{self.entry.name}" if self.qualified else self.entry.name
        return Name(name, tuple(self.options.changed().items()))

    def __str__(self) -> str:
        return str(self.name)

    def make(self, *given: Any) -> C:  # noqa: ANN401
        """The component: its class called with what its kind is given, and its options last.

        Raises:
            PluginError: its constructor raised.
            DDBenchError: its constructor refused what it was given.
        """
        try:
            with guarded("making it raised"):
                cls: Any = self.cls
                if (self.entry.kind, self.entry.provider) != ("executor", OWN):  # what ours raise is of jobs, or a bug
                    cls = guarded_class(cls, self.entry.kind, base_of(self.entry.kind))
                constructor: Callable[..., C] = cls
                component = constructor(*given, self.options)
                object.__setattr__(component, "ddbench_name", self.described)
        except PluginFault as fault:
            raised = error_line(fault.error).rstrip(": ")
            raise PluginError(f"{self.described} cannot be made: {raised}") from fault.error
        return component

    @property
    def described(self) -> str:
        """Its kind, its name with options and who provides it, for messages."""
        return f"{self.entry.kind} {self} of {self.entry.provider}"

    def identity(self) -> dict[str, Any]:
        """All that decides its numbers: name, provider, declared version, every option.

        Raises:
            PluginError: the class declares something else than a whole number as its version.
        """
        version: Any = self.cls.version  # type: ignore[attr-defined]
        if type(version) is not int:
            raise PluginError(f"{self.described} has version = {version!r}: it must be a whole number")
        with guarded(f"{self.described}: its options raised"):
            options = self.options.as_json()
        return {"name": self.entry.name, "provider": self.entry.provider, "version": version, "options": options}

    @property
    def source(self) -> tuple[str, str]:
        """The class's full name and the digest of the source that computes its numbers."""
        return f"{self.cls.__module__}.{self.cls.__qualname__}", self.source_digest()

    def source_digest(self) -> str:
        """SHA-256 of the source that computes its numbers."""
        return source_digest(self.cls.__module__)

    def provenance(self) -> dict[str, str]:
        """Where the component comes from: recorded, but no part of a key."""
        return {
            "name": str(self),
            "distribution": self.entry.provider,
            "distribution_version": self.entry.provider_version,
            "source": self.source_digest(),
        }


@dataclass(frozen=True)
class Absent:
    """A plugin that is installed and was not loaded, whose components nobody knows."""

    plugin: str
    status: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plugin} is {self.status} ({self.reason})"


@dataclass
class Registry:
    """All components of all plugins.

    Attributes:
        entries: what was registered.
        absent: the plugins that were not loaded.
    """

    entries: list[Entry] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Register a component.

        Raises:
            PluginError: the same provider has registered the name already, or something is misspelt.
        """
        if any((e.kind, e.name, e.provider) == (entry.kind, entry.name, entry.provider) for e in self.entries):
            raise PluginError(f"{entry.provider} registers the {entry.kind} {entry.name!r} twice")
        if not _NAME.fullmatch(entry.name):
            raise PluginError(f"{entry.name!r} cannot name a {entry.kind}: use letters, digits and any of . _ -")
        if ":" not in entry.target:
            raise PluginError(f"register({entry.name!r}, {entry.target!r}): the target must be 'package.module:Class'")
        self.entries.append(entry)

    def of_kind(self, kind: str) -> list[Entry]:
        """Its entries, by name."""
        return sorted((e for e in self.entries if e.kind == kind), key=lambda e: (e.name, e.provider))

    def find(self, kind: str, name: str) -> Entry:
        """The entry called ``name``, or ``distribution:name``.

        Raises:
            UsageError: there is none, or two plugins claim the name.
        """
        provider, _, short = name.rpartition(":")
        found = [e for e in self.of_kind(kind) if e.name == short and provider in ("", e.provider)]
        if not found:
            known = {e.name for e in self.of_kind(kind)}
            raise UsageError(f"there is no {kind} {name!r}: {did_you_mean(name, known)}{self._doubts()}")
        if len(found) > 1:
            claims = " and ".join(f"{e.provider}:{e.name}" for e in found)
            raise UsageError(f"{kind} {name!r} is claimed by two plugins: write {claims.replace(' and ', ' or ')}")
        return found[0]

    def _doubts(self) -> str:
        """Which plugins might have registered what is missing, and why they have not: the end of a message."""
        if not self.absent:
            return ""
        shown = "; ".join(map(str, self.absent[:_SHOWN]))
        more = f"; and {len(self.absent) - _SHOWN} more" if len(self.absent) > _SHOWN else ""
        return f"; what these would bring is not here: {shown}{more}"

    def ambiguous(self, entry: Entry) -> bool:
        """Whether another plugin claims the same name."""
        return sum(e.name == entry.name for e in self.of_kind(entry.kind)) > 1

    def display_name(self, entry: Entry) -> str:
        """The name by which the entry is found, with its distribution if another plugin claims it too."""
        return f"{entry.provider}:{entry.name}" if self.ambiguous(entry) else entry.name

    def resolve(self, kind: str, name: str | Name) -> Resolved[Any]:
        """Load the component that ``name`` stands for and check its options.

        Raises:
            UsageError: an unknown name or option, or a value outside its range.
            PluginError: the component cannot be loaded.
        """
        parsed = parse_name(name) if isinstance(name, str) else name
        entry = self.find(kind, parsed.name)
        cls = entry.load()
        with guarded(f"{kind} {entry.name!r} of {entry.provider}: its options raised"):
            options = cls.Options.from_name(parsed)
        return Resolved(entry, cls, options, qualified=self.ambiguous(entry))


def base_of(kind: str) -> Any:  # noqa: ANN401
    """The class that authors of a kind subclass."""
    return _import(_BASES[kind])


def _import(target: str) -> Any:  # noqa: ANN401
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
