"""Equal names that stand for different things are told apart: they are never averaged together or paired."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.report.scores import Score
from harness.report.tables.hold_outs import hold_outs_named

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
"""Axis, the part of an identity that its names stand for, and what else that part may depend on."""
_SAID = {
    "scored": "scored images",
    "augmentations": "augmentations",
    "dataset": "training images",
    "drawn": "networks",
    "artifact": "teacher",
}
"""What differs, where a digest is all that tells how."""
Variants = dict[str, str]
"""By identity, what tells it apart."""


def told_apart(scores: Sequence[Score], by_store: bool) -> tuple[list[Score], list[str]]:
    """The scores with names that tell different things apart, and a note for each name that needed it.

    Args:
        scores: of one or several stores.
        by_store: whether stores are what is compared: then a name may stand for something else in each.
    """
    notes: dict[str, None] = {}
    told = hold_outs_named(scores)
    for axis, part, given in _PARTS:
        keys = [_key(score, axis, part, given, by_store) for score in told]
        variants = _variants(keys, part)
        if not variants:
            continue
        for index, key in enumerate(keys):
            identity = key[-1]
            if identity is not None and key[:-1] in variants:
                suffix = variants[key[:-1]][identity]
                told[index] = told[index].qualified(axis, suffix) if suffix else told[index]
        notes |= dict.fromkeys(_notes(axis, variants))
    return told, list(notes)


def same_things(one: Score, other: Score) -> bool:
    """Whether two scores under the same names are of the same images, by the same versions of everything."""
    return (one.scored, one.identities) == (other.scored, other.identities)


def _key(score: Score, axis: str, part: str, given: Sequence[str], by_store: bool) -> tuple[Any, ...]:
    """A name with all that its meaning may depend on, and last what it stands for; None where that is not known."""
    identity = score.scored if part == "scored" else score.identities.get(part)
    return (getattr(score, axis), score.store if by_store else None, *(getattr(score, g) for g in given), identity)


def _variants(keys: Sequence[tuple[Any, ...]], part: str) -> Mapping[tuple[Any, ...], Variants]:
    """For each name that stands for several things, what tells them apart."""
    found: dict[tuple[Any, ...], dict[str, None]] = {}
    for key in dict.fromkeys(keys):
        if key[0] is not None and key[-1] is not None:
            found.setdefault(key[:-1], {})[key[-1]] = None
    return {key: _suffixes(sorted(identities), part) for key, identities in found.items() if len(identities) > 1}


def _suffixes(identities: Sequence[str], part: str) -> Variants:
    """What tells identities apart: versions and providers if those differ, else a digest; files by their set."""
    things = {identity: _component(identity, part) for identity in identities}
    made = [thing for thing in things.values() if isinstance(thing, dict)]
    differing = [key for key in ("version", "provider") if len({str(thing.get(key)) for thing in made}) > 1]
    suffixes = {}
    for identity, thing in things.items():
        if part == "total":
            suffixes[identity] = f"of {identity}"
        elif part == "method" and isinstance(thing, str):
            suffixes[identity] = f"file {thing[:8]}"
        elif isinstance(thing, dict):
            words = [_SAID[part]] if part in _SAID else []
            suffixes[identity] = " ".join([*words, ", ".join(f"{key} {thing.get(key)}" for key in differing)]).strip()
        else:
            suffixes[identity] = _SAID.get(part, "")
    every = list(suffixes.values())
    return {
        identity: suffix if every.count(suffix) == 1 else f"{suffix} #{_digest(identity)}".strip()
        for identity, suffix in suffixes.items()
    }


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:6]


def _component(identity: str, part: str) -> Any:  # noqa: ANN401
    """A component's identity, a file's set, or nothing of the kind."""
    if part not in ("method", "pool", "evaluator", "architecture", "artifact"):
        return None
    told = json.loads(identity)
    return told[0] if isinstance(told, list) else told


def _notes(axis: str, variants: Mapping[tuple[Any, ...], Variants]) -> Iterator[str]:
    for key, suffixes in variants.items():
        told = ", ".join(suffix or "as it is here" for suffix in suffixes.values())
        yield f"{axis} {key[0]} stands for {len(suffixes)} different things, which are kept apart: {told}"
