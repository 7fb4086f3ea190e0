"""The plugins, as commands use them."""

from harness.cli.errors import warn
from harness.plugins.discovery import PluginRow, Plugins, plugins


def found_plugins() -> Plugins:
    """All plugins; each broken one is mentioned with one line on stderr."""
    found = plugins()
    for row in found.rows:
        if row.status == "broken":
            warn(f"{label(row)} is broken and left out: {row.reason}")
    return found


def label(row: PluginRow) -> str:
    """A plugin's name with its distribution."""
    return f"plugin {row.name!r} of {row.distribution} {row.version}".rstrip()
