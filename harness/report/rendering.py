"""Making reports, and the files that they go into."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import DDBenchError, PluginError, UsageError
from harness.plugins.guard import PluginFault
from harness.plugins.registry import Resolved
from harness.plugins.returns import returned, text
from harness.types.report import Report, Results


def targets(reports: Sequence[Resolved[Report[Any]]], output: str | None) -> list[Path | None]:
    """The file of each report; None is stdout.

    Raises:
        UsageError: two reports would go into the same file.
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
    if suffix[0] != "." or "/" in suffix:
        raise PluginError(f"{what} is {suffix!r}, which is not the end of a file's name, such as .txt")
    return suffix


def rendered(resolved: Resolved[Report[Any]], results: Results) -> bytes:
    """The content of a report's file.

    Raises:
        PluginError: the report raised.
        DDBenchError: the report says why it cannot be made.
    """
    who = f"report {resolved} of {resolved.entry.provider}"
    report = resolved.make()
    try:
        content = report.render(results)
    except PluginFault:  # it names the report
        raise
    except DDBenchError as error:
        error.args = (f"{who}: {error}",)  # the same error, for not all are made of a message alone
        raise
    if isinstance(content, str):
        return content.encode()
    return returned(content, bytes, f"{type(report).__name__}.render()")
