"""The installed plugins, as commands use them."""

from typing import TYPE_CHECKING

from harness.cli.errors import warn
from harness.plugins.discovery import PluginRow, Plugins, plugins

if TYPE_CHECKING:  # lists of plugins import no torch
    from harness.plugins.published_sets import PublishedSets


def usable_plugins() -> Plugins:
    """Return all plugins, and warn about each broken one in one line on stderr."""
    installed = plugins()
    for row in installed.rows:
        if row.status == "broken":
            warn(f"{label(row)} is broken and not used: {row.reason}")
    return installed


def usable_published_sets() -> "PublishedSets":
    """Return the published sets of all plugins, and warn about each file that cannot be used in one line on stderr."""
    from harness.plugins.published_sets import published_sets

    known = published_sets(usable_plugins())
    for complaint in known.complaints:
        warn(complaint)
    return known


def label(row: PluginRow) -> str:
    """Describe a plugin by its name and its distribution."""
    return f"plugin {row.name!r} of {row.distribution} {row.version}".rstrip()
