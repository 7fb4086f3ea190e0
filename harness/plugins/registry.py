"""What plugins have registered, by kind and name; classes are imported when they are first asked for."""

import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from harness.plugins.source import source_digest
from harness.types.errors import DDBenchError, PluginError, UsageError, did_you_mean
from harness.types.names import Name, parse
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
        try:
            with stdout_to_stderr():
                cls = _import(self.target)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.provider} cannot be loaded from {self.target!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        base = _import(_BASES[self.kind])
        if not (inspect.isclass(cls) and issubclass(cls, base)):
            raise PluginError(f"{self.target!r} of {self.provider} is not a subclass of harness.{base.__name__}")
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            raise PluginError(f"{self.target!r} of {self.provider} does not define {', '.join(missing)}")
        options: Any = getattr(cls, "Options", None)
        if not (inspect.isclass(options) and issubclass(options, Options)):
            raise PluginError(f"Options of {self.target!r} of {self.provider} is not a subclass of harness.Options")
        return cls


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

    def __str__(self) -> str:
        name = f"{self.entry.provider}:{self.entry.name}" if self.qualified else self.entry.name
        return str(Name(name, tuple(self.options.changed().items())))

    def make(self, *given: Any) -> C:  # noqa: ANN401
        """The component: its class called with what its kind is given, and its options last.

        Raises:
            PluginError: its constructor raised.
            DDBenchError: its constructor refused what it was given.
        """
        constructor: Callable[..., C] = self.cls
        try:
            with stdout_to_stderr():
                return constructor(*given, self.options)
        except DDBenchError:
            raise
        except (Exception, SystemExit) as error:
            told = f"{type(error).__name__}: {error}".rstrip(": ")
            raise PluginError(f"{self.entry.kind} {self} of {self.entry.provider} cannot be made: {told}") from error

    def identity(self) -> dict[str, Any]:
        """All that decides its numbers: name, provider, declared version, every option."""
        return {
            "name": self.entry.name,
            "provider": self.entry.provider,
            "version": self.cls.version,  # type: ignore[attr-defined]
            "options": self.options.as_json(),
        }

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


@dataclass
class Registry:
    """All components of all plugins."""

    entries: list[Entry] = field(default_factory=list)

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
            raise UsageError(f"there is no {kind} {name!r}: {did_you_mean(name, known)}")
        if len(found) > 1:
            claims = " and ".join(f"{e.provider}:{e.name}" for e in found)
            raise UsageError(f"{kind} {name!r} is claimed by two plugins: write {claims.replace(' and ', ' or ')}")
        return found[0]

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
        parsed = parse(name) if isinstance(name, str) else name
        entry = self.find(kind, parsed.name)
        cls = entry.load()
        return Resolved(entry, cls, cls.Options.from_name(parsed), qualified=self.ambiguous(entry))


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """What a plugin prints goes to stderr: stdout belongs to results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _import(target: str) -> Any:  # noqa: ANN401
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
