"""Discovery of plugins, each isolated: a broken plugin becomes a row with its reason and affects no other."""

import contextlib
import functools
import importlib.metadata
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pluggy

from harness.errors import PluginError, did_you_mean, error_line
from harness.plugins import hookspecs
from harness.plugins.guard import PluginFault, guarded
from harness.plugins.last_words import last_words
from harness.plugins.observers import Observers
from harness.plugins.redirection import stdout_to_stderr
from harness.plugins.registry import KINDS, OWN, Absent, Entry, Registry
from harness.plugins.tracker import Tracker

GROUP = "ddbench"
VARIABLE = "DDBENCH_PLUGINS"
"""The environment variable that limits which plugins are loaded; the processes of a run inherit it."""
NONE = "none"
"""The value of the variable with which nothing is loaded but what comes with the harness."""
_DISABLED = "not named in DDBENCH_PLUGINS"
_ALL_DISABLED = "--no-plugins, or DDBENCH_PLUGINS=none, leaves out all but what comes with ddbench"


@dataclass
class PluginRow:
    """The result of loading one entry point."""

    name: str
    target: str
    distribution: str
    version: str
    status: str = "active"
    reason: str = ""
    hooks: list[str] = field(default_factory=list)
    contract: int | None = None
    """The version of the contract that the plugin declares to be written for; None if it declares none."""


@dataclass
class Plugins:
    """All installed plugins, and what they registered."""

    manager: pluggy.PluginManager
    registry: Registry = field(default_factory=Registry)
    rows: list[PluginRow] = field(default_factory=list)
    observers: Observers = field(default_factory=Observers)
    trackers: list[Tracker[Any]] = field(default_factory=list)
    """The trackers that observe the work of this process now."""

    def refuse_broken(self) -> None:
        """Raise `PluginError` for the first plugin that is broken or claims a name of another plugin."""
        for row in self.rows:
            if row.reason and row.status != "disabled":
                raise PluginError(f"plugin {row.name!r} of {row.distribution}: {row.reason} (--strict-plugins)")

    def observes(self, hook: str) -> bool:
        """Return whether any plugin or tracker implements an observer hook."""
        return bool(self.trackers or getattr(self.manager.hook, hook).get_hookimpls())

    def notify(self, hook: str, **arguments: Any) -> list[str]:  # noqa: ANN401
        """Call an observer hook of every plugin and tracker, each isolated; return what went wrong, a line each."""
        complaints = []
        for tracker in self.trackers:
            with stdout_to_stderr():
                complaints += self.observers.notify(_name_of(tracker), hook, getattr(tracker, hook), arguments)
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            accepted = {key: arguments[key] for key in implementation.argnames}
            with stdout_to_stderr():
                complaints += self.observers.notify(implementation.plugin_name, hook, implementation.function, accepted)
        return complaints

    def close_tracker(self, tracker: Tracker[Any]) -> list[str]:
        """Close a tracker that observes no more, and wait for it within limits; return what went wrong, a line each."""
        with stdout_to_stderr():
            complaints = self.observers.notify(_name_of(tracker), "close", tracker.close, {})
            return complaints + self.observers.dismiss(_name_of(tracker))

    def finish(self) -> list[str]:
        """Wait within limits for slow observers when the work is done; return what went wrong, a line each."""
        with stdout_to_stderr():
            return self.observers.finish()


def _name_of(tracker: Tracker[Any]) -> str:
    name: str = getattr(tracker, "ddbench_name", type(tracker).__name__)
    return name


@functools.cache
def plugins() -> Plugins:
    """Load every entry point of the group ``ddbench``, once per process.

    ``DDBENCH_PLUGINS=a,b`` limits what is loaded to the distributions or entry points named, ``DDBENCH_PLUGINS=none``
    to nothing; what comes with the harness is loaded always.
    """
    manager = pluggy.PluginManager("ddbench")
    # Specifications first: pluggy validates an implementation only against a specification that it knows when it
    # registers it.
    manager.add_hookspecs(hookspecs)
    loaded = Plugins(manager)
    wanted = _wanted()
    points = entry_points()
    for point in points:
        row = row_of(point)
        loaded.rows.append(row)
        if (
            row.distribution == OWN
            or wanted is None
            or wanted.intersection((_normal(row.name), _normal(row.distribution)))
        ):
            _load(loaded, point, row)
        else:
            row.status, row.reason = "disabled", _DISABLED if wanted else _ALL_DISABLED
    _note_claims(loaded)
    names = {name for row in loaded.rows for name in (row.name, row.distribution)}
    known = {_normal(name) for name in names}
    for name in sorted((wanted or set()) - known):
        reason = f"named in DDBENCH_PLUGINS, but not installed: {did_you_mean(name, names)}"
        loaded.rows.append(PluginRow(name, "", "no distribution", "", "broken", reason))
    absent = [row for row in loaded.rows if row.status != "active"]
    loaded.registry.absent = [
        Absent(f"plugin {row.name!r} of {row.distribution}", row.status, row.reason) for row in absent
    ]
    return loaded


def entry_points() -> list[importlib.metadata.EntryPoint]:
    """Return the entry points of the group, the harness's own first; unreadable distributions have none."""
    points: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(Exception):  # what an installer left half-written, of whichever distribution
            own = list(distribution.entry_points.select(group=GROUP))
            if own:  # the first on the path hides others of its name
                points.setdefault(_normal(distribution.name or str(len(points))), own)
    listed = [point for own in points.values() for point in own]
    # The harness's own come first, so that a plugin which claims one of its names is the one to be qualified.
    return sorted(listed, key=lambda point: (point.value != "harness.builtin", point.name))


def row_of(point: importlib.metadata.EntryPoint) -> PluginRow:
    """Return the row of an entry point before it is loaded."""
    name, version = (point.dist.name, point.dist.version) if point.dist else (None, None)
    return PluginRow(point.name, point.value, name or "unknown", version or "")


def _note_claims(loaded: Plugins) -> None:
    """Note in the rows of plugins that claim the same name how each component can be reached."""
    for entry in loaded.registry.entries:
        if loaded.registry.ambiguous(entry):
            claim = f"{entry.kind} {entry.name!r} is claimed by another plugin too: write {entry.provider}:{entry.name}"
            for row in loaded.rows:
                if row.distribution == entry.provider and row.status == "active" and claim not in row.reason:
                    row.reason = f"{row.reason}; {claim}" if row.reason else claim


def _wanted() -> set[str] | None:
    """Return the names to load beside the harness's own; None for all."""
    names = os.environ.get(VARIABLE)
    return None if names is None else {_normal(name) for name in names.split(",") if name.strip()} - {NONE}


def _normal(name: str) -> str:
    """Normalise a name as package indexes do: ``My_plugin`` becomes ``my-plugin``."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _load(loaded: Plugins, point: importlib.metadata.EntryPoint, row: PluginRow) -> None:
    try:
        with last_words(f"plugin {row.name!r} of {row.distribution} was imported", row.distribution == OWN):
            with guarded("importing it raised"):
                plugin = point.load()
            row.contract = _contract_of(plugin)
            loaded.manager.register(plugin, name=f"{row.distribution}:{point.name}")
            try:
                _take_up(loaded, plugin, row)
            except BaseException:
                # A half-registered plugin would still receive events through its observer hooks.
                loaded.manager.unregister(plugin)
                raise
    except Exception as error:
        cause = error.error if isinstance(error, PluginFault) else error
        row.status, row.reason = "broken", error_line(cause).rstrip(": ")


def _contract_of(plugin: object) -> int | None:
    """Return the version of the contract that a plugin declares; None if it declares none.

    Raises:
        PluginError: it cannot work with this ddbench.
    """
    with guarded(f"its {hookspecs.CONTRACT_ATTRIBUTE} raised"):
        version: Any = getattr(plugin, hookspecs.CONTRACT_ATTRIBUTE, None)
    oldest, newest = hookspecs.OLDEST_CONTRACT, hookspecs.CONTRACT_VERSION
    if version is None or (type(version) is int and oldest <= version <= newest):
        return version
    if type(version) is not int:
        raise PluginError(f"its {hookspecs.CONTRACT_ATTRIBUTE} is {version!r:.50}: it must be a whole number")
    works = f"this ddbench works with {f'{oldest} to {newest}' if oldest < newest else newest}"
    remedy = "install a newer ddbench" if version > newest else "install a newer version of the plugin"
    raise PluginError(f"it is written for version {version} of the contract, and {works}: {remedy}")


def _take_up(loaded: Plugins, plugin: object, row: PluginRow) -> None:
    """Let a plugin register its components: all of them, or none if it breaks."""
    callers = loaded.manager.get_hookcallers(plugin) or []
    row.hooks = sorted(caller.name for caller in callers if caller.has_spec())
    if unknown := sorted(caller.name for caller in callers if not caller.has_spec()):
        known = (caller.name for caller in vars(loaded.manager.hook).values() if caller.has_spec())
        raise PluginError(
            f"it implements hooks that do not exist: {', '.join(unknown)}: {did_you_mean(unknown[0], known)}"
        )
    if not row.hooks:
        row.reason = f"it implements no hooks: {_origin(plugin)}"
    before = len(loaded.registry.entries)
    try:
        for kind in KINDS:
            _register(loaded, plugin, kind, row)
    except BaseException:
        # Some components of a plugin without the others would depend on the order of its hooks.
        del loaded.registry.entries[before:]
        raise


def _origin(plugin: object) -> str:
    """Describe where a plugin comes from: a folder without ``__init__.py`` may shadow the intended module."""
    file: str | None = getattr(plugin, "__file__", None)
    return file or f"{plugin!r} has no file; name a module whose functions are marked by @hookimpl"


def _register(loaded: Plugins, plugin: object, kind: str, row: PluginRow) -> None:
    hook: Callable[..., Any] | None = getattr(plugin, f"register_{kind}s", None)
    if hook is None or f"register_{kind}s" not in row.hooks:
        return

    def register(name: str, target: str, summary: str) -> None:
        loaded.registry.add(Entry(kind, name, target, summary, row.distribution, row.version, row.name))

    with guarded(f"register_{kind}s() raised"):
        hook(register)
