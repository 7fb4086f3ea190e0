"""The base class of the contracts of all kinds: it resolves a component, checks its options and runs the checks."""

import inspect
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from unittest import SkipTest

import torch
from torch import Tensor

from harness.errors import UsageError
from harness.plugins.discovery import plugins
from harness.plugins.guard import PluginFault, guarded
from harness.plugins.registry import Resolved
from harness.types.network import Architecture
from harness.types.options import Options

_ODD_VALUES = ("", "?", "-1", "0", "1", "1e400", "nan", "auto", "a+b", "[", "none")
"""Texts that are no valid value of most options."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check; ``trace`` is the traceback of an exception."""

    check: str
    status: Literal["ok", "FAILED", "skipped"]
    detail: str = ""
    trace: str = ""


class Contract:
    """The checks of one kind of component: each is a method ``test_...`` whose docstring states the obligation.

    A check fails with an `AssertionError` or any exception of the component, and skips with `unittest.SkipTest`.

    Attributes:
        name: the component as it is typed, options in brackets included.
    """

    kind: ClassVar[str]
    name: str

    def resolved(self) -> Resolved[Any]:
        """Return the component with its options."""
        return plugins().registry.resolve(self.kind, self.name)

    def outcomes(self) -> Iterator[Outcome]:
        """Run every check, in the order in which they are written, and yield the outcomes."""
        for check in self._checks():
            yield self._outcome(check)

    def _checks(self) -> list[str]:
        # Base classes first, so that the checks of options run before those that need a working component.
        defined = [name for cls in reversed(type(self).__mro__) for name in vars(cls) if name.startswith("test_")]
        return list(dict.fromkeys(defined))

    def _outcome(self, check: str) -> Outcome:
        method = getattr(self, check)
        says = (inspect.getdoc(method) or check).splitlines()[0].rstrip(".")
        try:
            # The guard keeps the component's prints away from stdout, and a ``SystemExit`` from ending the checks.
            with guarded("it raised", passes=(Exception,)):
                method()
        except SkipTest as reason:
            return Outcome(says, "skipped", str(reason))
        except AssertionError as error:
            return Outcome(says, "FAILED", str(error), traceback.format_exc())
        except Exception as error:
            kind = "PluginError" if isinstance(error, PluginFault) else type(error).__name__
            described = f"{kind}: {error}".rstrip(": ")
            return Outcome(says, "FAILED", described, traceback.format_exc())
        return Outcome(says, "ok")

    def test_version(self) -> None:
        """The class loads, and its version is a whole number from 1 on."""
        version = self.resolved().cls.version
        require(type(version) is int and version >= 1, f"version is {version!r}")

    def test_options_are_described(self) -> None:
        """Every option says what it means."""
        for described in self.resolved().cls.Options.describe():
            require(
                described["meaning"].strip(), f"the option {described['name']} has no meaning: declare it by option()"
            )

    def test_options_are_read_back(self) -> None:
        """The options that are printed in brackets are read back as the same."""
        resolved = self.resolved()
        # Names in tables and records are typed again by people: each has to stand for the same component.
        again = plugins().registry.resolve(self.kind, str(resolved))
        require(
            again.options.as_json() == resolved.options.as_json(),
            f"{resolved} is read back as {again.options.as_json()}, not {resolved.options.as_json()}",
        )

    def test_odd_options_are_refused(self) -> None:
        """Options validate: odd values are taken, or refused with a UsageError of one line."""
        resolved = self.resolved()
        changed = resolved.options.changed()
        for key in (*resolved.cls.Options.fields_by_name(), "no_such_option"):
            for value in _ODD_VALUES:
                _take_or_refuse(resolved.cls.Options, {**changed, key: value}, f"{resolved.entry.name}[{key}={value}]")


def _take_or_refuse(options: type[Options], values: Mapping[str, str], described: str) -> None:
    from harness.types.names import Name

    try:
        options.from_name(Name(described.partition("[")[0], tuple(values.items())))
    except UsageError as error:
        require("\n" not in str(error), f"the error for {described} has more than one line: {error}")
    except Exception as error:  # the author's validators
        raise AssertionError(f"{described} raises {type(error).__name__}, not a UsageError: {error}") from error


def require(holds: object, fault: str) -> None:
    """Raise an `AssertionError` with ``fault`` unless ``holds``; unlike ``assert``, it cannot be switched off."""
    if not holds:
        raise AssertionError(fault)


def architecture(name: str) -> Resolved[Architecture[Any]]:
    """Return an architecture by its name."""
    return plugins().registry.resolve("architecture", name)


def same_bits(ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Return whether tensors by name are the same, bit for bit."""
    return ones.keys() == others.keys() and all(torch.equal(tensor, others[name]) for name, tensor in ones.items())


def finite(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether every value of every tensor is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
