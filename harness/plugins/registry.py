"""The registry of components by kind and name; their classes are imported when they are first needed."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from os.path import isdir
from typing import Any, Generic, TypeVar

from harness.errors import PluginError, UsageError, did_you_mean, error_line
from harness.plugins.code_digest import code_digest
from harness.plugins.guard import PluginFault, guarded, guarded_class
from harness.plugins.last_words import last_words
from harness.plugins.redirection import stdout_to_stderr as stdout_to_stderr
from harness.types.names import Name, parse_name
from harness.types.options import Options

KINDS = (
    *("method", "pool", "parametrisation", "evaluator", "architecture", "dataset", "format", "report", "executor"),
    *("tracker", "metric"),
)
_BASES = {
    "method": "harness.types.method:Method",
    "pool": "harness.types.pool:Pool",
    "parametrisation": "harness.types.parametrisation:Parametrisation",
    "evaluator": "harness.types.evaluator:Evaluator",
    "architecture": "harness.types.network:Architecture",
    "dataset": "harness.types.dataset:Dataset",
    "format": "harness.types.formats.format:SetFormat",
    "report": "harness.types.report:Report",
    "executor": "harness.types.executor:Executor",
    "tracker": "harness.plugins.tracker:Tracker",
    "metric": "harness.types.students.metric:Metric",
}
OWN = "ddbench"
"""The distribution of the harness and of the plugin that comes with it."""
_SHOWN = 3
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
C = TypeVar("C")


@dataclass(frozen=True)
class Entry:
    """A registered component that is not yet imported."""

    kind: str
    name: str
    target: str
    summary: str
    provider: str
    provider_version: str
    plugin: str = ""
    """The entry point that registered it; a distribution may have several."""

    def load(self) -> type[Any]:
        """Import the class of the component.

        Raises:
            PluginError: it cannot be imported, or is not a complete subclass of the base class of its kind.
        """
        base = base_of(self.kind)
        try:
            import_ends = last_words(f"{self.kind} {self.name!r} of {self.provider} was imported", self._is_imported)
            with import_ends, guarded("loading it raised"):
                cls = _import(self.target)
                is_class = inspect.isclass(cls) and issubclass(cls, base)
                # Abstract methods are reported when the class is loaded; Python itself would complain only at the first
                # instance.
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
    """A component with checked options, for which a name in brackets stands.

    Attributes:
        qualified: whether its name needs its distribution as a prefix, because several plugins claim it.
    """

    entry: Entry
    cls: type[C]
    options: Options
    qualified: bool = False

    @cached_property
    def name(self) -> Name:
        """The component's name with those options that are not at their defaults."""
        name = f"{self.entry.provider}:{self.entry.name}" if self.qualified else self.entry.name
        return Name(name, tuple(self.options.changed().items()))

    def __str__(self) -> str:
        return str(self.name)

    def make(self, *arguments: Any) -> C:  # noqa: ANN401
        """Build the component: call its class with the arguments of its kind, and its options last.

        Raises:
            PluginError: its constructor raised.
            DDBenchError: its constructor refused the arguments.
        """
        try:
            with guarded("making it raised"):
                cls: Any = self.cls
                if (self.entry.kind, self.entry.provider) != ("executor", OWN):  # what ours raise is of jobs, or a bug
                    cls = guarded_class(cls, self.entry.kind, base_of(self.entry.kind))
                constructor: Callable[..., C] = cls
                component = constructor(*arguments, self.options)
                object.__setattr__(component, "ddbench_name", self.described)
        except PluginFault as fault:
            raised = error_line(fault.error).rstrip(": ")
            raise PluginError(f"{self.described} cannot be made: {raised}") from fault.error
        return component

    @property
    def described(self) -> str:
        """The kind, the name with options and the provider, for messages."""
        return f"{self.entry.kind} {self} of {self.entry.provider}"

    def identity(self) -> dict[str, Any]:
        """Return everything that decides its numbers: name, provider, declared version, every option.

        Raises:
            PluginError: the version that the class declares is not a whole number.
        """
        version: Any = self.cls.version  # type: ignore[attr-defined]
        if type(version) is not int:
            raise PluginError(f"{self.described} has version = {version!r}: it must be a whole number")
        options = dict(self._options_as_json)
        return {"name": self.entry.name, "provider": self.entry.provider, "version": version, "options": options}

    @cached_property
    def _options_as_json(self) -> dict[str, Any]:
        """The options with their values: a plan asks for them in each of its thousands of cells."""
        with guarded(f"{self.described}: its options raised"):
            return self.options.as_json()

    @property
    def code(self) -> tuple[str, str]:
        """The class's full name and the digest of the code that computes its numbers."""
        return f"{self.cls.__module__}.{self.cls.__qualname__}", self.code_digest()

    def code_digest(self) -> str:
        """Return the SHA-256 of the code that computes its numbers."""
        return code_digest(self.cls.__module__)

    def provenance(self) -> dict[str, str]:
        """Return where the component comes from: recorded, but not part of a key."""
        return {
            "name": str(self),
            "distribution": self.entry.provider,
            "distribution_version": self.entry.provider_version,
            "code_digest": self.code_digest(),
        }


@dataclass(frozen=True)
class Absent:
    """A plugin that is installed but not loaded, so that its components are unknown."""

    plugin: str
    status: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plugin} is {self.status} ({self.reason})"


@dataclass
class Registry:
    """All components of all plugins.

    Attributes:
        entries: the registered components.
        absent: the plugins that were not loaded.
    """

    entries: list[Entry] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Register a component.

        Raises:
            PluginError: the provider has registered the name already, or the name or target is invalid.
        """
        if any((e.kind, e.name, e.provider) == (entry.kind, entry.name, entry.provider) for e in self.entries):
            raise PluginError(f"{entry.provider} registers the {entry.kind} {entry.name!r} twice")
        if not _NAME.fullmatch(entry.name):
            raise PluginError(f"{entry.name!r} cannot name a {entry.kind}: use letters, digits and any of . _ -")
        if ":" not in entry.target:
            raise PluginError(f"register({entry.name!r}, {entry.target!r}): the target must be 'package.module:Class'")
        self.entries.append(entry)

    def of_kind(self, kind: str) -> list[Entry]:
        """Return the entries of a kind, sorted by name."""
        return sorted((e for e in self.entries if e.kind == kind), key=lambda e: (e.name, e.provider))

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry called ``name`` or ``distribution:name``.

        Raises:
            UsageError: there is no such entry, or two plugins claim the name.
        """
        provider, _, short = name.rpartition(":")
        entries = [e for e in self.of_kind(kind) if e.name == short and provider in ("", e.provider)]
        if not entries:
            known = {e.name for e in self.of_kind(kind)}
            remedy = f"for a folder of images write folder[path={name}]" if kind == "dataset" and isdir(name) else ""
            remedy = remedy or did_you_mean(name, known)
            raise UsageError(f"there is no {kind} {name!r}: {remedy}{self._doubts()}")
        if len(entries) > 1:
            claims = " and ".join(f"{e.provider}:{e.name}" for e in entries)
            raise UsageError(f"{kind} {name!r} is claimed by two plugins: write {claims.replace(' and ', ' or ')}")
        return entries[0]

    def _doubts(self) -> str:
        """Return the end of a message: which plugins might have registered a missing name, and why they did not."""
        if not self.absent:
            return ""
        shown = "; ".join(map(str, self.absent[:_SHOWN]))
        more = f"; and {len(self.absent) - _SHOWN} more" if len(self.absent) > _SHOWN else ""
        return f"; these plugins may have it, but are not loaded: {shown}{more}"

    def ambiguous(self, entry: Entry) -> bool:
        """Return whether another plugin claims the same name."""
        return sum(e.name == entry.name for e in self.of_kind(entry.kind)) > 1

    def display_name(self, entry: Entry) -> str:
        """Return the name by which the entry is found, with its distribution if another plugin claims it too."""
        return f"{entry.provider}:{entry.name}" if self.ambiguous(entry) else entry.name

    def resolve(self, kind: str, name: str | Name) -> Resolved[Any]:
        """Load the component for which ``name`` stands and check its options.

        Raises:
            UsageError: the name or an option is unknown, or a value is out of range.
            PluginError: the component cannot be loaded.
        """
        parsed = parse_name(name) if isinstance(name, str) else name
        entry = self.find(kind, parsed.name)
        cls = entry.load()
        with guarded(f"{kind} {entry.name!r} of {entry.provider}: its options raised"):
            options = cls.Options.from_name(parsed)
        return Resolved(entry, cls, options, qualified=self.ambiguous(entry))


def base_of(kind: str) -> Any:  # noqa: ANN401
    """Return the class that authors of a kind subclass."""
    return _import(_BASES[kind])


def _import(target: str) -> Any:  # noqa: ANN401
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
