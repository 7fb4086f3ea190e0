"""Making reports, and the files that they go into."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.plugins.registry import Resolved, stdout_to_stderr
from harness.plugins.returns import returned
from harness.types.errors import DDBenchError, PluginError, UsageError
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
    files = [Path(f"ddbench-{one.entry.name}{one.cls.suffix}") for one in reports]
    for file in files:
        if files.count(file) > 1:
            raise UsageError(f"two reports would be written to {file}: ask for one at a time, with --output")
    return list(files)


def rendered(resolved: Resolved[Report[Any]], results: Results) -> bytes:
    """The content of a report's file.

    Raises:
        PluginError: the report raised.
        DDBenchError: the report says why it cannot be made.
    """
    who = f"report {resolved} of {resolved.entry.provider}"
    report = resolved.make()
    try:
        with stdout_to_stderr():
            content = report.render(results)
    except DDBenchError as error:
        error.args = (f"{who}: {error}",)  # the same error, for not all are made of a message alone
        raise
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}".rstrip(": ")
        raise PluginError(f"{who} cannot be made: {told}") from error
    if isinstance(content, str):
        return content.encode()
    return returned(content, bytes, f"{type(report).__name__}.render()")
