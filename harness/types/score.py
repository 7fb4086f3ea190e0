"""Scores of students, with everything that decides with which others they may be compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from harness.types.data.hold_out import HoldOut
from harness.types.names import Name, name_or_text

ACCURACY = "accuracy"
"""The name under which the accuracy is asked for, beside those of metrics."""
COMPONENTS = ("dataset", "method", "pool", "evaluator", "architecture")
"""Fields of a score that are names of components."""


@dataclass(frozen=True)
class Score:
    """The score of one student, from its record and its set's.

    Attributes:
        store: the store's folder as it was typed.
        key: of the student's cell.
        set_key: of its set's cell.
        dataset, ipc, iterations, method, pool, evaluator, architecture: as they stand in tables; None if the
            method has no such thing.
        protocol: the evaluator's recipe.
        precision: of the distillation; ``unknown`` for a set from a file.
        score_on: ``test`` or ``validation``.
        scored: the fingerprint of the scored images.
        accuracy: a fraction.
        collapsed: see `harness.StudentRecord`.
        status: of the set: ``done``, ``blown up`` or ``diverged``.
        device: where the student was trained; ``set_device`` where the set was made, None for one from a file.
        seconds, peak_memory: what the student took (seconds, bytes).
        loss: its last training loss, None if that was not finite.
        losses: its training losses.
        checksum: of the student's record.
        set_seconds: what the distillation took up to this set; None for one from a file.
        like, preprocessing: the known data set whose published numbers apply, and the normalisation; None if the
            record does not say.
        main: the pool's main architecture, if it has one and the record names it.
        drawn: how often the pool really gave each architecture; empty for a set from a file.
        from_file: whether the set was distilled elsewhere, so that no other set shares its random numbers.
        training_images: how many real images the set was distilled from; None if the record does not say.
        hold_out: the validation split that was cut from the training images, and is not among those; None if nothing
            was held out or the record does not say.
        identities: by part (``dataset``, ``augmentations``, ``method``, ``total``, ``pool``, ``drawn``,
            ``evaluator``, ``artifact``, ``architecture``), as JSON, what the name stands for; equal names with other
            identities are other things. A set from a file has only its own as its method's.
        storage: how many numbers of 32 bits the set takes, with what its evaluator stores beside it, such as soft
            labels of every epoch; None if no record says.
        epochs: how many the student trained; None if its record does not say.
        set_options: options that were set by component (``--set``) where the set was made.
        code: by part and component, digests of the source that made the student, its set and its teacher.
        metrics: other measurements by name; None if one was not finite.
        real_data: whether its evaluator used real training images beside the set, say for a teacher.
        qualifiers: by field, what follows the name there because equal names stand for different things:
            ``" (version 2)"``.
        labels: by field, the name for which the label stands that the field holds.
    """

    store: str
    key: str
    set_key: str
    dataset: str
    ipc: int | None
    iterations: int | None
    method: str
    pool: str | None
    evaluator: str
    architecture: str
    protocol: str
    precision: str
    score_on: str
    scored: str
    seed: int
    distillation: int
    student: int
    accuracy: float
    collapsed: bool
    status: str
    device: str
    seconds: float
    peak_memory: int
    loss: float | None = None
    losses: tuple[float | None, ...] = ()
    checksum: str = ""
    set_device: str | None = None
    set_seconds: float | None = None
    like: str | None = None
    preprocessing: str | None = None
    main: str | None = None
    drawn: Mapping[str, int] = field(default_factory=dict)
    from_file: bool = False
    training_images: int | None = None
    hold_out: HoldOut | None = None
    identities: Mapping[str, str] = field(default_factory=dict)
    storage: int | None = None
    epochs: int | None = None
    set_options: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    qualifiers: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    real_data: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        student = f"student {self.student} of {self.evaluator} on {self.architecture}"
        return f"<Score {self.accuracy:.4f}: {student}, {self.method} #{self.distillation}, {self.dataset}>"

    @cached_property
    def names(self) -> Mapping[str, Name]:
        """The parsed names of the components by field, without qualifiers; a component that it lacks is missing."""
        typed = {field: self.typed_name(field) for field in COMPONENTS}
        return {field: name_or_text(text) for field, text in typed.items() if text is not None}

    @cached_property
    def main_name(self) -> Name | None:
        """The parsed name of the pool's main architecture; None if there is none or it is unknown."""
        return None if self.main is None else name_or_text(self.labels.get("main", self.main))

    def value(self, metric: str) -> float | None:
        """Return the accuracy or a metric by its name; None if the student has none of this name, or no finite one."""
        return self.accuracy if metric == ACCURACY else self.metrics.get(metric)

    def typed_name(self, field: str) -> str | None:
        """Return a component's name as it is typed on the command line, without its qualifier."""
        text = self.full_name(field)
        return None if text is None else text.removesuffix(self.qualifiers.get(field, ""))

    def full_name(self, field: str) -> str | None:
        """Return a component's name with its qualifier, and without a label."""
        text: str | None = getattr(self, field)
        return f"{self.labels[field]}{self.qualifiers.get(field, '')}" if field in self.labels else text

    def labelled(self, labels: Mapping[str, str]) -> "Score":
        """Return a copy with labels in place of names; ``labels`` are by name."""
        own = {field: name for field in (*COMPONENTS, "main") if (name := getattr(self, field)) in labels}
        if not own:
            return self
        shown = {field: labels[name] for field, name in own.items()}
        return replace(self, **shown, labels={**self.labels, **own})  # type: ignore[arg-type]

    def qualified(self, field: str, words: str) -> "Score":
        """Return a copy whose component is called ``NAME (words)``."""
        added = f" ({words})"
        qualifiers = {**self.qualifiers, field: self.qualifiers.get(field, "") + added}
        return replace(self, **{field: f"{getattr(self, field)}{added}"}, qualifiers=qualifiers)  # type: ignore[arg-type]


CONDITION = ("dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture")
"""The fields that the candidates of a choice have in common, apart from the option."""


@dataclass(frozen=True, eq=False)
class ChoiceRecord:
    """The record of one choice on validation.

    Attributes:
        store: the store's folder as it was typed.
        key: of the choice's cell.
        option: what was chosen, say ``kd.temperature``.
        value: the full name of the chosen component.
        curve: by full component name, the mean accuracy on validation, a fraction.
        condition: by field, what the candidates have in common; the component stands without the option. Empty if the
            record does not say.
        hold_out: the validation split; None if the record does not say it.
        probed: the names in the curve whose pool was probed on this split, so that their accuracies are optimistic.
    """

    store: str
    key: str
    option: str
    value: str
    curve: Mapping[str, float]
    condition: Mapping[str, str | int | None]
    hold_out: HoldOut | None
    probed: tuple[str, ...] = ()

    def covers(self, score: Score) -> bool:
        """Return whether the score is one of the chosen component in the choice's condition."""
        parts = [score.full_name(field) for field in ("method", "pool", "evaluator")]
        if score.store != self.store or self.value not in parts:
            return False
        return all(score.full_name(field) in (value, self.value) for field, value in self.condition.items())
