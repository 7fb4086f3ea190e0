"""Rendering of reports, and the files that they are written to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import DDBenchError, PluginError, UsageError
from harness.plugins.guard import PluginFault
from harness.plugins.registry import Resolved
from harness.plugins.returns import returned, text
from harness.types.report import Report, Results


def targets(reports: Sequence[Resolved[Report[Any]]], output: str | None) -> list[Path | None]:
    """Return the file of each report; None is stdout.

    Raises:
        UsageError: two reports would be written to the same file.
    """
    if output is not None and len(reports) > 1:
        raise UsageError(f"--output names one file, but {len(reports)} reports were asked for: leave it out")
    if output is not None:
        return [None if output == "-" else Path(output)]
    files = [Path(f"ddbench-{resolved.entry.name}{_suffix(resolved)}") for resolved in reports]
    for file in files:
        if files.count(file) > 1:
            raise UsageError(f"two reports would be written to {file}: ask for one at a time, with --output")
    return list(files)


def _suffix(resolved: Resolved[Report[Any]]) -> str:
    what = f"{resolved.described}: suffix"
    suffix = text(resolved.cls.suffix, what)
    # The suffix becomes part of a path: it must not lead to another folder.
    if suffix[0] != "." or "/" in suffix:
        raise PluginError(f"{what} is {suffix!r}, which is not a suffix of a file name, such as .txt")
    return suffix


def render_report(resolved: Resolved[Report[Any]], results: Results) -> bytes:
    """Render a report into the content of its file.

    Raises:
        PluginError: the report raised.
        DDBenchError: the report explains why it cannot be rendered.
    """
    who = f"report {resolved} of {resolved.entry.provider}"
    report = resolved.make()
    try:
        content = report.render(results)
    except PluginFault:  # its message already names the report
        raise
    except DDBenchError as error:
        error.args = (f"{who}: {error}",)  # not a new error: some classes take more than a message
        raise
    if isinstance(content, str):
        return content.encode()
    return returned(content, bytes, f"{type(report).__name__}.render()")
