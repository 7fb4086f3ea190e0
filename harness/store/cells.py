"""Cells: units of work, each known by a key, the SHA-256 of all that decides its numbers."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.store.records import Record, StoredChoice

SHORT = 12
"""Digits of a key that are shown: among a million cells, two share them once in five hundred stores."""


def canonical_json(value: Any) -> str:  # noqa: ANN401
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def is_prefix(text: str) -> bool:
    """Return whether a text can be the beginning of a key."""
    return re.fullmatch(r"[0-9a-f]{1,64}", text) is not None


@dataclass(frozen=True)
class Cell:
    """A unit of work.

    Attributes:
        kind: ``distilled`` (a trajectory up to an iteration), ``artifact`` or ``student``.
        identity: as JSON, all that decides its numbers.
        label: what it is, for people.
        sources: by component, the digest of the source that computes it now; by it stale records are known.
    """

    kind: str
    identity: Mapping[str, Any]
    label: str
    sources: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The cell's key."""
        return key_of({"kind": self.kind, **self.identity})

    def is_stale(self, record: Record) -> bool:
        """Whether ``record`` was made by a different version of the code than the one here."""
        made_by = record.provenance.sources if not isinstance(record, StoredChoice) else {}
        return any(made_by.get(name) not in (None, digest) for name, digest in self.sources.items())
