"""Evaluation of a file as a published set: options taken from the registry, and whether its accuracy is reproduced."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.api.run_result import RunResult
from harness.planning.request import Request
from harness.types.formats import LAST, Reading, display_name
from harness.types.formats.published_set import PublishedSet
from harness.types.score import ACCURACY


def options_of(published: PublishedSet) -> dict[str, Any]:
    """Return the options of an evaluation by which the stated accuracies were measured."""
    options = {"dataset": published.dataset, "evaluator": published.evaluator, "students": published.students}
    stated = {"architecture": list(published.stated)} if published.stated else {}
    return {name: value for name, value in {**options, **stated}.items() if value is not None}


def reading_as(published: PublishedSet, reading: Reading) -> Reading:
    """Return how to read the file: as typed, and else as the published set is read."""
    return Reading(
        reading.entry if reading.entry != LAST or published.entry is None else published.entry,
        reading.format or published.format,
        reading.step_size if reading.step_size is not None else published.step_size,
    )


def file_notes(file: Path, published: PublishedSet) -> Iterator[str]:
    """Yield a line if the file is not the one that was published, or if nobody knows."""
    if published.sha256 is None:
        yield f"the checksum of {published.name} is not known, so {display_name(file)} may be another set"
    elif not file.is_file() or _sha256(file) != published.sha256:
        yield f"{display_name(file)} is not the file that was published as {published.name}: its SHA-256 differs"


def with_reproductions(result: RunResult, request: Request, published: PublishedSet) -> RunResult:
    """Return a result with lines on whether each stated accuracy is reproduced, or why that cannot be said."""
    reason = _obstacle(result, request, published)
    if reason:
        return replace(result, notes=(*result.notes, f"{published.name} is not compared with what is stated: {reason}"))
    compared = replace(result, published=published)
    lines = [f"{published.name}, {ACCURACY} in %, within 1 point or 2 standard errors; stated by {published.source}"]
    lines += [str(each) for each in compared.reproductions]
    lines += [f"note: {published.note}"] if published.note else []
    return replace(compared, notes=(*result.notes, *lines))


def _obstacle(result: RunResult, request: Request, published: PublishedSet) -> str:
    """Return why measured and stated accuracies are not of the same thing; empty if they are."""
    if request.evaluator != (published.evaluator,):
        return f"that is for --evaluator {published.evaluator}"
    if request.score_on != "test" or request.choose:
        return "that is for test images and no choice"
    if any(row["like"] not in (published.dataset, None) and row["dataset"] != published.dataset for row in result.rows):
        return f"that is for {published.dataset}, or a copy with like={published.dataset}"
    if not any(row["architecture"] in published.stated for row in result.rows):
        return f"it is stated for {', '.join(published.stated) or 'no architecture'}"
    return ""


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
