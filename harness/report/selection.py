"""Selection of the cells of a store by filters, with all cells that they depend on."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.report.comparing.question import selected_values, value_of
from harness.report.scores import read_scores
from harness.store.records import Record
from harness.types.score import Score

_RESULTS = ("result", "history", "provenance", "files")
"""Parts of a record that refer to no other cell, and may be long."""


def selected_cells(store: Path, only: Mapping[str, Sequence[str]]) -> tuple[set[str], tuple[str, ...]]:
    """Return the keys of the students that filters select and of the cells that they depend on, and notes.

    Args:
        store: a folder or a packed file.
        only: by axis, the names or numbers of which a score has to have one.

    Raises:
        StoreError: it is not a store, or cannot be read.
        UsageError: no score has one of the names.
    """
    records: dict[str, Record] = {}
    read = read_scores([store], lambda _store, record: records.update({record.key: record}))
    scores = selected_scores(read.scores, only)
    keys = {score.key for score in scores}
    keys |= {choice.key for choice in read.choices if any(choice.covers(score) for score in scores)}
    # Any text that is a key counts as a reference, in whatever field: so no list of fields can fall behind the records.
    unvisited = list(keys)
    while unvisited:
        record = records[unvisited.pop()]
        needed = {text for name, part in record.as_json().items() if name not in _RESULTS for text in _texts(part)}
        unvisited += (needed & records.keys()) - keys
        keys |= needed & records.keys()
    return keys, read.notes


def selected_scores(scores: Sequence[Score], only: Mapping[str, Sequence[str]]) -> list[Score]:
    """Return the scores that filters select; an axis without names selects all.

    Raises:
        UsageError: no score has one of the names.
    """
    selection = list(scores)
    for axis, names in only.items():
        if names:
            values = selected_values(selection, axis, names)
            selection = [score for score in selection if value_of(score, axis) in values]
    return selection


def _texts(part: object) -> Iterator[str]:
    """Yield every text in a part of a record: whatever refers to a cell holds its key."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _texts(value)
    elif isinstance(part, list):
        for value in part:
            yield from _texts(value)
