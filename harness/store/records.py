"""Records: what the store holds of a finished cell, as one frozen model for each kind of cell.

Reading returns these models, and writing takes them. A field with a default was not written by every version of
ddbench. Fields that no model names are kept: a record is written again as it was read.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

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

    # Extra fields are allowed and kept because a key is the hash of a whole identity, named fields or not, and because
    # another version may have written more than this one knows.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Return the part as JSON: the fields that were written, and no defaults of fields that were not."""
        return self.model_dump(exclude_unset=True)


class Provider(_Part):
    """The distribution that a component came from."""

    name: str
    distribution: str
    distribution_version: str
    source: str | None = None


class ComputeMode(_Part):
    """The machine, and what else decides the last bits of a number (see `harness.compute.machine.Compute`)."""

    device: str


class Adoption(_Part):
    """What showed that another version of the code computes the same (``ddbench results adopt``)."""

    at: str
    checked: list[Key]
    previous: dict[str, str]
    ddbench: str


class Provenance(_Part):
    """What made the cell, and when.

    Attributes:
        set: the options that were set by component (``NAME.OPTION=VALUE``).
    """

    compute: ComputeMode
    components: list[Provider] | None = None
    dataset: Provider | None = None
    sources: dict[str, str] = {}
    code_digests: dict[str, str] = {}
    adopted: Adoption | None = None
    set: list[str] = []
    versions: dict[str, str] | None = None
    finished: str = ""


class TableFields(_Part):
    """The fields of a result by which a set and its students stand in tables."""

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


class StudentResult(TableFields):
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


class SetResult(TableFields):
    """The outcome of a distillation."""

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
    settings: Any = None


class SetIdentity(_Part):
    """What decides a set."""

    trajectory: TrajectoryIdentity
    architectures: list[Identity]
    iterations: Count


class SetHistory(_Part):
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
    def _drawn_from_its_architectures(self) -> Self:
        if any(index >= len(self.architectures) for drawn in self.draws for index in drawn):
            raise ValueError(f"an index in draws is beyond the {len(self.architectures)} architectures")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether all that reports show of a history was written."""
        return {"scalars", "architectures", "draws"} <= self.model_fields_set


class ArtifactIdentity(_Part):
    """What decides an artifact."""

    architecture: Identity | None


class ChoiceResult(_Part):
    """The chosen value of an option, and the mean of each on validation."""

    option: str
    value: str
    curve: dict[str, Fraction]

    @model_validator(mode="after")
    def _chosen_from_its_curve(self) -> Self:
        if self.value not in self.curve:
            raise ValueError("value is none of its curve")
        return self


class _Record(_Part):
    """What the records of all kinds have in common.

    Attributes:
        label: the cell, for people.
        files: by the name of a file beside the record, its SHA-256.
        checksum: of the record; empty until it is written.
    """

    kind: str
    label: str
    key: Key
    files: dict[str, str] = {}
    checksum: str = ""

    @property
    def finished(self) -> str:
        """When the cell was made, in UTC; empty if the record does not say."""
        return ""

    @property
    def outcome(self) -> str:
        """What became of the work in one word, as listings show it."""
        return "done"


class StoredStudent(_Record):
    """The record of a student.

    Attributes:
        set: the key of its set's cell.
        set_file: the digest of the file that it was trained on, because the set may have been made again since.
    """

    kind: Literal["student"]
    set: Key
    identity: StudentIdentity
    result: StudentResult
    provenance: Provenance
    set_file: str | None = None

    @property
    def finished(self) -> str:
        """When the student was scored."""
        return self.provenance.finished

    @property
    def outcome(self) -> str:
        """Whether the student collapsed."""
        return "collapsed" if self.result.collapsed else "done"


class StoredSet(_Record):
    """The record of a distilled set."""

    kind: Literal["distilled"]
    identity: SetIdentity
    result: SetResult
    provenance: Provenance
    history: SetHistory = SetHistory()
    trajectory: Key | None = None

    @property
    def finished(self) -> str:
        """When the set was reached."""
        return self.provenance.finished

    @property
    def outcome(self) -> str:
        """The status of the distillation."""
        return self.result.status


class StoredArtifact(_Record):
    """The record of an artifact; its result is what the plugin says of it.

    Attributes:
        set: the key of the set that it was made for; None if it was made for a method.
    """

    kind: Literal["artifact"]
    identity: ArtifactIdentity
    result: dict[str, Any]
    provenance: Provenance
    set: str | None = None

    @property
    def finished(self) -> str:
        """When the artifact was made."""
        return self.provenance.finished

    @property
    def outcome(self) -> str:
        """What its plugin says became of it."""
        return "collapsed" if self.result.get("collapsed") else str(self.result.get("status") or "done")


class ChoiceCondition(_Part):
    """What the candidates of a choice have in common; the swept component stands without the option."""

    dataset: str
    ipc: Count | None
    iterations: Count | None
    method: str
    pool: str | None
    evaluator: str
    architecture: str


class StoredChoice(_Record):
    """The record of a choice, which no component made.

    Attributes:
        validation: the split that it was made on.
    """

    kind: Literal["choice"]
    identity: dict[str, Any]
    result: ChoiceResult
    provenance: dict[str, Any]
    condition: ChoiceCondition | None = None
    validation: HoldOutResult | None = None


Record = StoredStudent | StoredSet | StoredArtifact | StoredChoice
KINDS: Mapping[str, type[Record]] = {
    "student": StoredStudent,
    "distilled": StoredSet,
    "artifact": StoredArtifact,
    "choice": StoredChoice,
}


def parse_record(content: Mapping[str, Any]) -> Record:
    """Return the record that JSON holds; no value may be missing, of another type or out of range.

    Raises:
        ValueError: with the reason.
    """
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"its kind is {kind!r:.60}, and not one of {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(content)
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
    """Return the first error of a validation in one line, with the number of the others."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    value = "" if first["type"] in ("missing", "value_error") else f" is {first['input']!r:.60}"
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{place}{value}: {first['msg']}{more}"[:_LONGEST_REASON]
