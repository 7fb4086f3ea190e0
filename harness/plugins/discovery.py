"""Finding plugins, each on its own: a broken one becomes a row with its reason, and takes nothing else down."""

import functools
import importlib.metadata
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from harness.plugins import hookspecs
from harness.plugins.registry import KINDS, Entry, Registry, stdout_to_stderr
from harness.types.errors import PluginError, did_you_mean

GROUP = "ddbench"


@dataclass
class PluginRow:
    """What became of one entry point."""

    name: str
    target: str
    distribution: str
    version: str
    status: str = "active"
    reason: str = ""
    hooks: list[str] = field(default_factory=list)


@dataclass
class Plugins:
    """All plugins that were found, and what they registered."""

    manager: pluggy.PluginManager
    registry: Registry = field(default_factory=Registry)
    rows: list[PluginRow] = field(default_factory=list)

    def refuse_broken(self) -> None:
        """Raise `PluginError` for the first plugin that is broken, or that claims a name which another claims."""
        for row in self.rows:
            if row.reason and row.status != "disabled":
                raise PluginError(f"plugin {row.name!r} of {row.distribution}: {row.reason} (--strict-plugins)")

    def notify(self, hook: str, **arguments: Mapping[str, Any]) -> list[str]:
        """Call an observer hook of every plugin, each on its own; return what went wrong, a line a plugin."""
        complaints = []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                with stdout_to_stderr():
                    accepted = {key: arguments[key] for key in implementation.argnames}
                    implementation.function(**accepted)
            except Exception as error:  # an observer must never take a run down
                complaints.append(f"{hook} of plugin {implementation.plugin_name!r} raised {error!r}")
        return complaints


@functools.cache
def plugins() -> Plugins:
    """Load every entry point of the group ``ddbench``, once a process.

    ``DDBENCH_PLUGINS=a,b`` limits what is loaded to the entry points named (and the harness's own).
    """
    manager = pluggy.PluginManager("ddbench")
    manager.add_hookspecs(hookspecs)
    found = Plugins(manager)
    wanted = _wanted()
    points = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: (p.value != "harness.builtin", p.name))
    for point in points:
        distribution = point.dist.name if point.dist else "unknown"
        row = PluginRow(point.name, point.value, distribution, point.dist.version if point.dist else "")
        found.rows.append(row)
        if wanted is None or point.name in wanted or point.value == "harness.builtin":
            _load(found, point, row)
        else:
            row.status, row.reason = "disabled", "not named in DDBENCH_PLUGINS"
    _tell_of_claims(found)
    known = {point.name for point in points}
    for name in sorted((wanted or set()) - known):
        reason = f"named in DDBENCH_PLUGINS, but not installed: {did_you_mean(name, known)}"
        found.rows.append(PluginRow(name, "", "no distribution", "", "broken", reason))
    return found


def _tell_of_claims(found: Plugins) -> None:
    """Say in the rows of plugins that claim the same name which it is, and how both can be reached."""
    for entry in found.registry.entries:
        if found.registry.ambiguous(entry):
            told = f"{entry.kind} {entry.name!r} is claimed by another plugin too: write {entry.provider}:{entry.name}"
            for row in found.rows:
                if row.distribution == entry.provider and row.status == "active" and told not in row.reason:
                    row.reason = f"{row.reason}; {told}" if row.reason else told


def _wanted() -> set[str] | None:
    """The entry points to load; None is all."""
    names = os.environ.get("DDBENCH_PLUGINS")
    return None if names is None else {name.strip() for name in names.split(",") if name.strip()}


def _load(found: Plugins, point: importlib.metadata.EntryPoint, row: PluginRow) -> None:
    try:
        with stdout_to_stderr():
            plugin = point.load()
        found.manager.register(plugin, name=f"{row.distribution}:{point.name}")
        try:
            _take_up(found, plugin, row)
        except BaseException:
            found.manager.unregister(plugin)
            raise
    except (Exception, SystemExit) as error:
        row.status, row.reason = "broken", f"{type(error).__name__}: {error}".splitlines()[0]


def _take_up(found: Plugins, plugin: object, row: PluginRow) -> None:
    """Let a plugin register its components: all of them, or none where it breaks."""
    callers = found.manager.get_hookcallers(plugin) or []
    row.hooks = sorted(caller.name for caller in callers if caller.has_spec())
    if unknown := sorted(caller.name for caller in callers if not caller.has_spec()):
        known = (caller.name for caller in vars(found.manager.hook).values() if caller.has_spec())
        raise PluginError(
            f"it implements hooks that do not exist: {', '.join(unknown)}: {did_you_mean(unknown[0], known)}"
        )
    if not row.hooks:
        row.reason = f"it implements no hooks: {_origin(plugin)}"
    before = len(found.registry.entries)
    try:
        for kind in KINDS:
            _register(found, plugin, kind, row)
    except BaseException:
        del found.registry.entries[before:]
        raise


def _origin(plugin: object) -> str:
    """Where a plugin was found: a folder without ``__init__.py`` can stand in the way of the module that was meant."""
    file: str | None = getattr(plugin, "__file__", None)
    return file or f"{plugin!r} has no file; name a module whose functions are marked by @hookimpl"


def _register(found: Plugins, plugin: object, kind: str, row: PluginRow) -> None:
    hook: Callable[..., Any] | None = getattr(plugin, f"register_{kind}s", None)
    if hook is None or f"register_{kind}s" not in row.hooks:
        return

    def register(name: str, target: str, summary: str) -> None:
        found.registry.add(Entry(kind, name, target, summary, row.distribution, row.version, row.name))

    with stdout_to_stderr():
        hook(register)
