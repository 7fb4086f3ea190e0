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
from harness.types.errors import PluginError

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
    wanted = os.environ.get("DDBENCH_PLUGINS")
    points = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: (p.value != "harness.builtin", p.name))
    for point in points:
        distribution = point.dist.name if point.dist else "unknown"
        row = PluginRow(point.name, point.value, distribution, point.dist.version if point.dist else "")
        found.rows.append(row)
        allowed = wanted is None or point.name in wanted.split(",") or point.value == "harness.builtin"
        if allowed:
            _load(found, point, row)
        else:
            row.status, row.reason = "disabled", "not named in DDBENCH_PLUGINS"
    return found


def _load(found: Plugins, point: importlib.metadata.EntryPoint, row: PluginRow) -> None:
    try:
        with stdout_to_stderr():
            plugin = point.load()
        name = found.manager.register(plugin, name=f"{row.distribution}:{point.name}")
        row.hooks = sorted(caller.name for caller in found.manager.get_hookcallers(plugin) or [])
        unknown = [hook for hook in vars(plugin) if _marked(plugin, hook) and hook not in row.hooks]
        if unknown or name is None:
            raise PluginError(f"it implements hooks that do not exist: {', '.join(unknown)}")
        before = len(found.registry.entries)
        try:
            for kind in KINDS:
                _register(found, plugin, kind, row)
        except BaseException:
            del found.registry.entries[before:]
            raise
    except (Exception, SystemExit) as error:
        row.status, row.reason = "broken", f"{type(error).__name__}: {error}".splitlines()[0]
        if found.manager.is_registered(getattr(point, "_loaded", None)):
            found.manager.unregister(name=f"{row.distribution}:{point.name}")


def _register(found: Plugins, plugin: object, kind: str, row: PluginRow) -> None:
    hook: Callable[..., Any] | None = getattr(plugin, f"register_{kind}s", None)
    if hook is None or f"register_{kind}s" not in row.hooks:
        return

    def register(name: str, target: str, summary: str) -> None:
        found.registry.add(Entry(kind, name, target, summary, row.distribution, row.version))

    with stdout_to_stderr():
        hook(register)


def _marked(plugin: object, attribute: str) -> bool:
    return getattr(getattr(plugin, attribute, None), "ddbench_impl", None) is not None
