"""Cells: units of work, each known by a key, the SHA-256 of all that decides its numbers."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.store.records import Record, StoredChoice, StoredStudent

SHORT = 12
"""Number of digits of a key that are shown: with a million cells, two share them in one of five hundred stores."""


def canonical_json(value: Any) -> str:  # noqa: ANN401
    """Return JSON with sorted keys and no spaces, so that equal values give equal text."""
    # Never to be changed, nor its arguments: every key of every store that exists is a hash of this text.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an identity's canonical JSON, in hexadecimal."""
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
        code_digests: by component, the digest of the code that computes it now, which shows whether a record is stale.
        metrics: of a student, by full name what its record has to hold beside the score: name, provider, version and
            options. Not part of the key, since they decide no other number.
    """

    kind: str
    identity: Mapping[str, Any]
    label: str
    code_digests: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The key of the cell."""
        return key_of({"kind": self.kind, **self.identity})

    def lacks_metrics(self, record: Record) -> bool:
        """Return whether a record holds no measurement of some metric, or one of another version."""
        measured = record.result.measured if isinstance(record, StoredStudent) else {}
        return any(measured.get(name) != identity for name, identity in self.metrics.items())

    def is_stale(self, record: Record) -> bool:
        """Return whether a different version of the code made ``record``."""
        # A record without the digest of a component is not stale, and the first versions wrote digests of another kind
        # (``sources``): a record counts as done unless it is known to be old. `ddbench results adopt` finds out.
        made_by = {} if isinstance(record, StoredChoice) else record.provenance.code_digests or {}
        return any(made_by.get(name) not in (None, digest) for name, digest in self.code_digests.items())
