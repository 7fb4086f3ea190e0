"""Records: what the store holds of a finished cell, as one frozen model for each kind of cell.

Reading returns these models, and writing takes them. A field with a default was not written by every version of
ddbench. Fields that no model names are preserved: a record is written again as it was read.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA = 1
KEY = r"[0-9a-f]{2,64}"
_LONGEST_REASON = 200

Key = Annotated[str, Field(pattern=f"^{KEY}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Identity = dict[str, Any]
"""Identity of a component: name, options, provider and version."""


class RecordPart(BaseModel):
    """A part of a record: no value is converted, and no number is NaN or infinite."""

    # Extra fields are allowed because a key is the hash of a whole identity, named fields or not, and because
    # another version may have written more than this one knows.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Return the part as JSON: the fields that were written, and no defaults of fields that were not."""
        return self.model_dump(exclude_unset=True)


class Provider(RecordPart):
    """The distribution that a component came from."""

    name: str
    distribution: str
    distribution_version: str
    source: str | None = None


class ComputeMode(RecordPart):
    """The machine, with all else that decides the last bits of a number (see `harness.compute.machine.Compute`)."""

    device: str


class Adoption(RecordPart):
    """The check that showed that another version of the code computes the same (``ddbench results adopt``)."""

    at: str
    checked: list[Key]
    previous: dict[str, str]
    ddbench: str


class Provenance(RecordPart):
    """The components, code and machine that made a cell, and the time.

    Attributes:
        set: the options that were set by component (``NAME.OPTION=VALUE``).
    """

    compute: ComputeMode
    components: list[Provider] | None = None
    dataset: Provider | None = None
    # By component the hash of its source text, as the first versions wrote it: any comment changed it.
    sources: dict[str, str] = {}
    code_digests: dict[str, str] = {}
    adopted: Adoption | None = None
    set: list[str] = []
    versions: dict[str, str] | None = None
    finished: str = ""


class TableFields(RecordPart):
    """The fields of a result by which tables list a set and its students."""

    dataset: str
    ipc: Count | None
    iterations: Count | None
    method: str
    pool: str | None
    seed: int
    distillation: Count


class HoldOutResult(RecordPart):
    """The validation split that was cut from the training set."""

    images: Count
    of: Count
    seed: int


class StudentResult(TableFields):
    """The score of a student (see `harness.StudentRecord`), with the names of what scored it."""

    evaluator: str
    architecture: str
    protocol: str
    score_on: Literal["test", "validation"]
    student: Count
    accuracy: Fraction
    loss: float | None  # None for NaN and infinity, which JSON cannot hold
    collapsed: bool
    seconds: Seconds
    peak_memory: Count
    losses: list[float | None] = []
    epochs: Count | None = None
    abreast: Count | None = None
    metrics: dict[str, float | None] = {}
    # By the full name of a metric that was asked for: its name, provider, version and options.
    measured: dict[str, Identity] = {}
    extra_bits: Count = 0
    real_data: bool = False
    precision: str | None = None
    like: str | None = None
    preprocessing: str | None = None
    set_status: str | None = None
    set_storage: Count | None = None
    set_part: str | None = None
    training_images: Count | None = None
    hold_out: HoldOutResult | None = None


class StudentIdentity(RecordPart):
    """All that decides a score, except the set."""

    artifact: Key | None
    augmentations: dict[str, Any]
    score: str
    evaluator: Identity
    architecture: Identity


class ProbeEntry(RecordPart):
    """A probe of a set in the making: by architecture, the accuracies of the students on the validation split."""

    iteration: Count
    accuracies: dict[str, list[Fraction]]
    seconds: Seconds


class SearchResult(RecordPart):
    """What it cost to find a pool's distributions: probes and, if another ``set`` was probed, its distillation."""

    seconds: Seconds
    probe_seconds: Seconds
    probes: list[ProbeEntry]
    set: Key | None = None


class SetResult(TableFields):
    """The outcome of a distillation."""

    status: Literal["done", "blown up", "diverged"]
    seconds: Seconds
    storage_floats: Count
    largest: float | None = None
    std: float | None = None
    step_size: float | None = None
    label_kind: Literal["hard", "soft", "regression"] | None = None
    schedule_steps: Count | None = None
    settings: dict[str, Any] = {}
    draws: dict[str, Count] | None = {}
    search: SearchResult | None = None
    main: str | None = None
    training_images: Count | None = None
    hold_out: HoldOutResult | None = None


class TrajectoryIdentity(RecordPart):
    """All that decides a trajectory."""

    problem: str
    augmentations: dict[str, Any]
    method: Identity
    pool: Identity | None
    precision: str
    total: Count | None
    settings: Any = None


class SetIdentity(RecordPart):
    """All that decides a set."""

    trajectory: TrajectoryIdentity
    architectures: list[Identity]
    iterations: Count


class SetHistory(RecordPart):
    """The course of a trajectory up to a set (see `harness.learning.trajectory.History`)."""

    iterations: Count = 0
    diverged_at: Count | None = None
    seconds: Seconds = 0.0
    scalars: dict[str, list[float | None]] = {}
    architectures: list[str] = []
    draws: list[list[Count]] = []
    pool: dict[str, Any] = {}
    probes: list[ProbeEntry] = []
    schedule: list[dict[str, Any]] = []
    compute: list[dict[str, Any]] = []

    @model_validator(mode="after")
    def _drawn_from_its_architectures(self) -> Self:
        if any(index >= len(self.architectures) for drawn in self.draws for index in drawn):
            raise ValueError(f"an index in draws is beyond the {len(self.architectures)} architectures")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether all that reports show of a history was written."""
        # By the fields that were written: those that were not have defaults, and would look like an empty history.
        return {"scalars", "architectures", "draws"} <= self.model_fields_set


class ArtifactIdentity(RecordPart):
    """The part of an artifact's identity that the harness reads; the rest is its plugin's."""

    architecture: Identity | None


class ChoiceResult(RecordPart):
    """The chosen value of an option, and the mean of every value on validation."""

    option: str
    value: str
    curve: dict[str, Fraction]
    probed: list[str] = []

    @model_validator(mode="after")
    def _chosen_from_its_curve(self) -> Self:
        if self.value not in self.curve:
            raise ValueError("value is not in its curve")
        return self


class _Record(RecordPart):
    """The fields that records of all kinds have in common.

    Attributes:
        label: name of the cell, for people.
        files: by the name of a file beside the record, its SHA-256.
        checksum: checksum of the record; empty until it is written.
    """

    kind: str
    label: str
    key: Key
    files: dict[str, str] = {}
    checksum: str = ""

    @property
    def finished(self) -> str:
        """The time at which the cell was finished, in UTC; empty if unknown."""
        return ""

    @property
    def outcome(self) -> str:
        """The outcome in one word, as listings show it."""
        return "done"


class StoredStudent(_Record):
    """The record of a student.

    Attributes:
        set: the key of its set's cell.
        set_file: the digest of the file that it was trained on, because the set may have been distilled again since.
    """

    kind: Literal["student"]
    set: Key
    identity: StudentIdentity
    result: StudentResult
    provenance: Provenance
    set_file: str | None = None

    @property
    def finished(self) -> str:
        """The time at which the student was scored."""
        return self.provenance.finished

    @property
    def outcome(self) -> str:
        """Either ``collapsed`` or ``done``."""
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
        """The time at which the trajectory reached the set."""
        return self.provenance.finished

    @property
    def outcome(self) -> str:
        """The status of the distillation."""
        return self.result.status


class StoredArtifact(_Record):
    """The record of an artifact, whose result has the fields that its plugin wrote.

    Attributes:
        set: the key of the set that it belongs to; None if it belongs to a method.
    """

    kind: Literal["artifact"]
    identity: ArtifactIdentity
    result: dict[str, Any]
    provenance: Provenance
    set: str | None = None

    @property
    def finished(self) -> str:
        """The time at which the artifact was finished."""
        return self.provenance.finished

    @property
    def outcome(self) -> str:
        """The outcome that its plugin reported."""
        # Students and teachers report collapse, sets their status; a plugin may do either or neither.
        return "collapsed" if self.result.get("collapsed") else str(self.result.get("status") or "done")


class ChoiceCondition(RecordPart):
    """The fields that the candidates of a choice share; the swept component is named without the option."""

    dataset: str
    ipc: Count | None
    iterations: Count | None
    method: str
    pool: str | None
    evaluator: str
    architecture: str


class StoredChoice(_Record):
    """The record of a choice between values of an option.

    Attributes:
        validation: the split that decided.
    """

    kind: Literal["choice"]
    identity: dict[str, Any]
    result: ChoiceResult
    provenance: dict[str, Any]  # empty: a choice follows from the records of students, and no component computes it
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


def first_error(error: ValidationError) -> str:
    """Return the first error of a validation in one line, with the number of the others."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    value = "" if first["type"] in ("missing", "value_error") else f" is {first['input']!r:.60}"
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{place}{value}: {first['msg']}{more}"[:_LONGEST_REASON]
