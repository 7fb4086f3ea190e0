"""Labels of a store: the names that its users gave to arms, read from the requests of its runs."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.store.files.folders import RUNS, entries_of
from harness.store.files.reading import DamagedFile
from harness.store.run_files import read_request
from harness.store.store import Store
from harness.types.names import read_labels


def with_labels_in(text: str, labels: Mapping[str, str]) -> str:
    """Replace the names in the label of a cell or a run, which spaces and commas divide, by labels."""
    for name, label in labels.items():
        # A label has no backslash, which a replacement would read as a group.
        text = re.sub(rf"(?<!\S){re.escape(name)}(?=[,\s]|$)", label, text)
    return text


def labels_of_result(result: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of the names in a record's result, by field."""
    fields = ("dataset", "method", "pool", "evaluator", "architecture")
    return {field: labels[name] for field in fields if (name := str(result.get(field))) in labels}


def labels_of_runs(store: Store) -> dict[str, str]:
    """Return labels by name; those on which runs do not agree are left out.

    A packed store holds no runs, and so no labels.
    """
    labels_of, names_of = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    try:
        folders = sorted(Path(entry.path) for entry in entries_of(store.path / RUNS))
    except OSError:
        return {}
    for folder in folders:
        try:
            labels = read_labels(list(map(str, read_request(folder).request.get("label", ()))))
        except (OSError, DamagedFile, UsageError, TypeError):  # labels alone: `results verify` reports what is wrong
            continue
        for label, name in labels.items():
            labels_of[name].add(label)
            names_of[label].add(name)
    agreed = {name: labels for name, labels in labels_of.items() if len(labels) == 1}
    return {name: label for name, (label,) in agreed.items() if len(names_of[label]) == 1}
