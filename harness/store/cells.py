"""Cells: units of work, each known by a key, the SHA-256 of all that decides its numbers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

SHORT = 12
"""Digits of a key that are shown: among a million cells, two share them once in five hundred stores."""


def canonical_json(value: Any) -> str:  # noqa: ANN401
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


@dataclass(frozen=True)
class Cell:
    """A unit of work.

    Attributes:
        kind: ``distilled`` (a trajectory up to an iteration), ``artifact`` or ``student``.
        identity: as JSON, all that decides its numbers.
        label: what it is, for people.
        code_digests: by component, the digest of the code that computes it now; by it stale records are known.
    """

    kind: str
    identity: Mapping[str, Any]
    label: str
    code_digests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The cell's key."""
        return key_of({"kind": self.kind, **self.identity})

    def is_stale(self, record: Mapping[str, Any]) -> bool:
        """Return whether a different version of the code made ``record``.

        A record without the digest of a component is not stale, and the first versions wrote digests of another kind
        (``sources``): what nobody knows to be old counts as done. ``ddbench results adopt`` finds out.
        """
        made_by = record["provenance"].get("code_digests", {})
        return any(made_by.get(name) not in (None, digest) for name, digest in self.code_digests.items())
