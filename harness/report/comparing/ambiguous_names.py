"""Equal names that stand for different things get qualifiers, so that they are never averaged together or paired."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.report.scores import Score
from harness.report.tables.hold_outs import with_hold_outs_in_names

_PARTS = (
    ("dataset", "scored", ("score_on",)),
    ("dataset", "augmentations", ("score_on",)),
    ("dataset", "dataset", ("score_on",)),
    ("method", "method", ("dataset", "ipc")),
    ("method", "total", ("iterations",)),
    ("pool", "pool", ()),
    ("pool", "drawn", ("iterations",)),
    ("evaluator", "evaluator", ()),
    ("evaluator", "artifact", ()),
    ("architecture", "architecture", ()),
)
"""Axis, the part of an identity that its names stand for, and the fields that this part may depend on."""
_DIFFERENCES = {
    "scored": "scored images",
    "augmentations": "augmentations",
    "dataset": "training images",
    "drawn": "networks",
    "artifact": "teacher",
}
"""What differs, for parts whose identities differ only in a digest."""
Variants = dict[str, str]
"""By identity, the qualifier that distinguishes it."""


def distinguish(scores: Sequence[Score], by_store: bool) -> tuple[list[Score], list[str]]:
    """Qualify names that stand for different things, and return the scores with a note for each such name.

    Args:
        scores: of one or several stores.
        by_store: whether stores are compared: then a name may stand for something else in each of them.
    """
    notes: dict[str, None] = {}
    # Sets without the validation split first: "without ..." says more than the digest that they would get below.
    distinct = with_hold_outs_in_names(scores)
    for axis, part, fields in _PARTS:
        # Recomputed for each part, because earlier qualifiers may already distinguish what this part would.
        keys = [_key(score, axis, part, fields, by_store) for score in distinct]
        variants = _variants(keys, part)
        if not variants:
            continue
        for index, key in enumerate(keys):
            identity = key[-1]
            # A record that lacks the identity may be of any of them, and keeps its name.
            if identity is not None and key[:-1] in variants:
                suffix = variants[key[:-1]][identity]
                distinct[index] = distinct[index].qualified(axis, suffix) if suffix else distinct[index]
        notes |= dict.fromkeys(_notes(axis, variants))
    return distinct, list(notes)


def same_things(score: Score, other: Score) -> bool:
    """Return whether two scores under the same names are on the same images, by the same versions of everything."""
    return (score.scored, score.identities) == (other.scored, other.identities)


def _key(score: Score, axis: str, part: str, fields: Sequence[str], by_store: bool) -> tuple[Any, ...]:
    """Return a name with all that its meaning may depend on, and last its identity; None if that is unknown."""
    identity = score.scored if part == "scored" else score.identities.get(part)
    return (
        getattr(score, axis),
        score.store if by_store else None,
        *(getattr(score, field) for field in fields),
        identity,
    )


def _variants(keys: Sequence[tuple[Any, ...]], part: str) -> Mapping[tuple[Any, ...], Variants]:
    """Return the qualifiers for each name that stands for several things."""
    identities_of: dict[tuple[Any, ...], dict[str, None]] = {}
    for key in dict.fromkeys(keys):
        if key[0] is not None and key[-1] is not None:
            identities_of.setdefault(key[:-1], {})[key[-1]] = None
    return {
        key: _suffixes(sorted(identities), part) for key, identities in identities_of.items() if len(identities) > 1
    }


def _suffixes(identities: Sequence[str], part: str) -> Variants:
    """Return a qualifier for each identity: versions and providers if those differ, else a digest."""
    things = {identity: _component(identity, part) for identity in identities}
    components = [thing for thing in things.values() if isinstance(thing, dict)]
    differing = [key for key in ("version", "provider") if len({str(thing.get(key)) for thing in components}) > 1]
    # What people can act on comes first: a version or a provider says more than a digest.
    suffixes = {}
    for identity, thing in things.items():
        if part == "total":
            suffixes[identity] = f"of {identity}"
        elif part == "method" and isinstance(thing, str):
            suffixes[identity] = f"file {thing[:8]}"
        elif isinstance(thing, dict):
            words = [_DIFFERENCES[part]] if part in _DIFFERENCES else []
            suffixes[identity] = " ".join([*words, ", ".join(f"{key} {thing.get(key)}" for key in differing)]).strip()
        else:
            suffixes[identity] = _DIFFERENCES.get(part, "")
    # Equal suffixes would not distinguish anything.
    every = list(suffixes.values())
    return {
        identity: suffix if every.count(suffix) == 1 else f"{suffix} #{_digest(identity)}".strip()
        for identity, suffix in suffixes.items()
    }


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:6]


def _component(identity: str, part: str) -> Any:  # noqa: ANN401
    """Return a component's identity or the key of a set from a file; None for parts that are neither."""
    if part not in ("method", "pool", "evaluator", "architecture", "artifact"):
        return None
    value = json.loads(identity)
    return value[0] if isinstance(value, list) else value


def _notes(axis: str, variants: Mapping[tuple[Any, ...], Variants]) -> Iterator[str]:
    for key, suffixes in variants.items():
        qualifiers = ", ".join(suffix or "as it is here" for suffix in suffixes.values())
        yield f"{axis} {key[0]} stands for {len(suffixes)} different things, which are kept apart: {qualifiers}"
