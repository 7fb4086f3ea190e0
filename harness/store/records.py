"""Records: what the store holds of a finished cell, by kind; fields that tables read are checked wherever one is read.

What has a default was not written by every version. Fields that are not named here may be there too.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA = 1
KEY = r"[0-9a-f]{2,64}"
_FILE_NAME = re.compile(r"[^/\0]+")
_LONGEST_REASON = 200

Key = Annotated[str, Field(pattern=f"^{KEY}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Identity = dict[str, Any]
"""Of a component: name, options, provider and version."""


class _Part(BaseModel):
    """A part of a record: no value is converted, and no number is NaN or infinite."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Provider(_Part):
    """What brought a component."""

    name: str
    distribution: str
    distribution_version: str


class Compute(_Part):
    """The machine."""

    device: str


class Adoption(_Part):
    """What showed that another version of the code computes the same (``ddbench results adopt``)."""

    at: str
    checked: list[Key]
    previous: dict[str, str]
    ddbench: str


class Provenance(_Part):
    """What made the cell, and when."""

    compute: Compute
    components: list[Provider] | None = None
    dataset: Provider | None = None
    sources: dict[str, str] = {}
    code_digests: dict[str, str] = {}
    adopted: Adoption | None = None
    set: list[str] = []
    versions: dict[str, str] | None = None
    finished: str = ""


class Row(_Part):
    """What a set and its students have in common with a row of a table."""

    dataset: str
    ipc: Count | None
    iterations: Count | None
    method: str
    pool: str | None
    seed: int
    distillation: Count


class HoldOutResult(_Part):
    """The validation split that was cut from the training set."""

    images: Count
    of: Count
    seed: int


class StudentResult(Row):
    """The score of a student (see `harness.StudentRecord`), and what it was scored by."""

    evaluator: str
    architecture: str
    protocol: str
    score_on: Literal["test", "validation"]
    student: Count
    accuracy: Fraction
    loss: float | None
    collapsed: bool
    seconds: Seconds
    peak_memory: Count
    losses: list[float | None] = []
    epochs: Count | None = None
    abreast: Count | None = None
    precision: str | None = None
    like: str | None = None
    preprocessing: str | None = None
    set_status: str | None = None
    set_storage: Count | None = None
    set_part: str | None = None
    training_images: Count | None = None
    hold_out: HoldOutResult | None = None


class StudentIdentity(_Part):
    """What decides a score."""

    artifact: Key | None
    augmentations: dict[str, Any]
    score: str
    evaluator: Identity
    architecture: Identity


class SetResult(Row):
    """What became of a distillation."""

    status: Literal["done", "blown up", "diverged"]
    seconds: Seconds
    storage_floats: Count
    largest: float | None = None
    std: float | None = None
    step_size: float | None = None
    settings: dict[str, Any] = {}
    draws: dict[str, Count] | None = {}
    main: str | None = None
    training_images: Count | None = None
    hold_out: HoldOutResult | None = None


class TrajectoryIdentity(_Part):
    """What decides a trajectory."""

    problem: str
    augmentations: dict[str, Any]
    method: Identity
    pool: Identity | None
    precision: str
    total: Count | None


class SetIdentity(_Part):
    """What decides a set."""

    trajectory: TrajectoryIdentity
    architectures: list[Identity]
    iterations: Count


class History(_Part):
    """What happened on the way to a set (see `harness.learning.trajectory.History`)."""

    iterations: Count = 0
    diverged_at: Count | None = None
    seconds: Seconds = 0.0
    scalars: dict[str, list[float | None]] = {}
    architectures: list[str] = []
    draws: list[list[Count]] = []
    pool: dict[str, Any] = {}
    compute: list[dict[str, Any]] = []

    @model_validator(mode="after")
    def _drawn_from_its_architectures(self) -> "History":
        if any(index >= len(self.architectures) for drawn in self.draws for index in drawn):
            raise ValueError(f"an index in draws is beyond the {len(self.architectures)} architectures")
        return self


class ArtifactIdentity(_Part):
    """What decides an artifact."""

    architecture: Identity | None


class ChoiceResult(_Part):
    """The chosen value of an option, and the mean of each on validation."""

    option: str
    value: str
    curve: dict[str, Fraction]

    @model_validator(mode="after")
    def _chosen_from_its_curve(self) -> "ChoiceResult":
        if self.value not in self.curve:
            raise ValueError("value is none of its curve")
        return self


class _Record(_Part):
    """What all have in common."""

    label: str
    key: Key


class StudentRecord(_Record):
    """Of a student."""

    set: Key
    identity: StudentIdentity
    result: StudentResult
    provenance: Provenance


class DistilledRecord(_Record):
    """Of a distilled set."""

    identity: SetIdentity
    result: SetResult
    provenance: Provenance
    history: History = History()
    trajectory: Key | None = None


class ArtifactRecord(_Record):
    """Of an artifact; its result is what the plugin says of it."""

    identity: ArtifactIdentity
    result: dict[str, Any]
    provenance: Provenance


class ChoiceRecord(_Record):
    """Of a choice, which no component made."""

    identity: dict[str, Any]
    result: ChoiceResult
    provenance: dict[str, Any]


KINDS: Mapping[str, type[_Record]] = {
    "student": StudentRecord,
    "distilled": DistilledRecord,
    "artifact": ArtifactRecord,
    "choice": ChoiceRecord,
}


def check_record(record: Mapping[str, Any]) -> None:
    """Check that a record has what is read of its kind, and that no value is of another type or out of range.

    Raises:
        ValueError: with the reason.
    """
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"its kind is {kind!r:.60}, and not one of {', '.join(KINDS)}")
    try:
        KINDS[kind].model_validate(record)
    except ValidationError as error:
        raise ValueError(first_error(error)) from None


def check_files(files: object) -> None:
    """Check the names of files with their digests that stand in a record.

    Raises:
        ValueError: with the reason.
    """
    if not isinstance(files, dict):
        raise ValueError("names no files")
    for name, digest in files.items():
        if not _FILE_NAME.fullmatch(name) or name in (".", ".."):
            raise ValueError(f"names {name[:80]!r}, which is no file beside it")
        if not isinstance(digest, str):
            raise ValueError(f"names {name[:80]!r} without a digest")


def first_error(error: ValidationError) -> str:
    """The first of what is wrong, and how much more."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    value = "" if first["type"] in ("missing", "value_error") else f" is {first['input']!r:.60}"
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{place}{value}: {first['msg']}{more}"[:_LONGEST_REASON]
