"""Confounders: what the arms of one comparison differ in beyond the axis that is compared."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import few
from harness.types.names import Name

MARK = "WARNING: "
"""Begins each line that says why numbers which stand side by side may not be comparable."""


@dataclass(frozen=True, eq=False)
class Contender:
    """An arm, as far as a fair comparison depends on it; None for what is unknown or not applicable.

    Attributes:
        names: by axis, the arm's value as it stands in tables.
        components: by axis, the parsed name of the arm's component there.
        main_model: the pool's main architecture with its options.
        training_images: the fingerprint of the images that it was distilled from.
        storage: how many numbers its set takes.
        pixels: how many numbers its images are before they are packed: instead of ``storage`` until sets are made.
        iterations: updates of the set.
        epochs: of its students.
        method, evaluator: their options by name.
        set_options: options that were set by component (``--set``), wherever it is used.
    """

    names: Mapping[str, str | None]
    components: Mapping[str, Name] = field(default_factory=dict)
    main_model: Name | None = None
    training_images: str | None = None
    storage: int | None = None
    pixels: int | None = None
    iterations: int | None = None
    epochs: int | None = None
    method: Mapping[str, Any] = field(default_factory=dict)
    evaluator: Mapping[str, Any] = field(default_factory=dict)
    set_options: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Contenders that are compared along axes, all else that has a name being equal."""

    axes: tuple[str, ...]
    contenders: Sequence[Contender]


Value = Callable[[Contender], Hashable | None]


@dataclass(frozen=True)
class _Quantity:
    """Something that a fair comparison holds equal.

    Attributes:
        name: of it, for people.
        of: its value for a contender, None if it has none; of several functions the first that most know.
        remedy: what to do where it differs.
        owner: the axis whose options decide it: where names of one component differ in options, its value is compared.
        implied_by: axes that change it by their nature.
        only_by: axes along which it is asked for; empty for all.
        show: a value for people.
    """

    name: str
    of: tuple[Value, ...]
    remedy: str
    owner: str | None = None
    implied_by: frozenset[str] = frozenset()
    only_by: frozenset[str] = frozenset()
    show: Callable[[Any], str] = str

    def concerns(self, axes: Iterable[str]) -> bool:
        """Whether it may confound a comparison along the axes."""
        along = set(axes)
        return not along & self.implied_by and (not self.only_by or bool(along & self.only_by))


def _option(kind: str, name: str) -> Value:
    """The value of an option that several components of a kind have, ``auto`` if it is left to the component."""

    def of(contender: Contender) -> Hashable | None:
        options = getattr(contender, kind)
        if name not in options:
            return None
        value = options[name]
        return "auto" if value is None else str(value)

    return of


_QUANTITIES = (
    _Quantity(
        "main model", (lambda arm: arm.main_model,), "give every pool the same main=... with the same options", "pool"
    ),
    _Quantity(
        "training images", (lambda arm: arm.training_images,), "distil every arm from the same training images",
        implied_by=frozenset({"dataset"}), show=lambda digest: f"#{digest[:6]}",
    ),
    _Quantity(
        "real images of each class a step", (_option("method", "batch_real"),), "give every method the same batch_real",
        "method",
    ),
    _Quantity(
        "storage", (lambda arm: arm.storage, lambda arm: arm.pixels), "compare sets of the same size", "method",
        implied_by=frozenset({"ipc", "dataset"}), show=lambda number: f"{number:,} numbers",
    ),
    _Quantity(
        "number of updates", (lambda arm: arm.iterations,), "compare at the same iterations",
        implied_by=frozenset({"iterations"}), show=lambda number: f"{number:,}",
    ),
    _Quantity(
        "updates in an iteration", (_option("method", "outer"),), "give every method the same outer", "method"
    ),
    _Quantity(
        "epochs of students", (lambda arm: arm.epochs, _option("evaluator", "epochs")),
        "give every evaluator the same epochs", "evaluator", only_by=frozenset({"evaluator"}),
    ),
    _Quantity(
        "protocol of students", (_option("evaluator", "protocol"),), "give every evaluator the same protocol",
        "evaluator", only_by=frozenset({"evaluator"}),
    ),
)  # fmt: skip


def confounder_warning(comparisons: Iterable[SideBySide]) -> str | None:
    """One line that names the arms which differ beyond what is compared, and in what; None if none do."""
    every = list(comparisons)
    differences = [text for quantity in _QUANTITIES if (text := _difference(quantity, every))]
    return f"{MARK}arms differ in more than what is compared: {'; '.join(differences)}" if differences else None


def _difference(quantity: _Quantity, comparisons: Sequence[SideBySide]) -> str | None:
    """What is to be said of one quantity: how it differs in the first comparison, and in how many others it does."""
    texts: dict[str, None] = {}
    for comparison in comparisons:
        if quantity.concerns(comparison.axes) and (clashing := _clashing(quantity, comparison)):
            texts[_sentence(quantity, clashing, comparison.axes)] = None
    if not texts:
        return None
    first, others = next(iter(texts)), len(texts) - 1
    more = f", and otherwise in {others} more comparison{'s' if others > 1 else ''}" if others else ""
    return f"{quantity.name}: {first}{more} ({quantity.remedy})"


def _sentence(quantity: _Quantity, clashing: Mapping[Contender, Hashable], axes: Sequence[str]) -> str:
    by_value: dict[Hashable, dict[str, None]] = {}
    for contender, value in clashing.items():
        by_value.setdefault(value, {})[_label(contender, quantity, axes)] = None
    return few([f"{quantity.show(value)} in {few(list(labels))}" for value, labels in by_value.items()], ", but ")


def _label(contender: Contender, quantity: _Quantity, axes: Sequence[str]) -> str:
    """The arm by the axis that the quantity belongs to, else by all that are compared."""
    along = [quantity.owner] if quantity.owner in axes else axes
    return " · ".join(name for axis in along if axis and (name := contender.names.get(axis)))


def _values(quantity: _Quantity, contenders: Sequence[Contender]) -> dict[Contender, Hashable]:
    """By contender, the value; those without one are left out."""
    known = [{arm: value for arm in contenders if (value := of(arm)) is not None} for of in quantity.of]
    return max(known, key=len)


def _clashing(quantity: _Quantity, comparison: SideBySide) -> dict[Contender, Hashable]:
    """By contender, the values of those that differ from another beyond what is compared."""
    values = _values(quantity, comparison.contenders)
    if len(set(values.values())) < 2:
        return {}
    owner = quantity.owner
    if owner is None or owner not in comparison.axes:
        return values
    families: dict[str | None, dict[Contender, Hashable]] = {}
    for contender, value in values.items():
        families.setdefault(_head(contender, owner), {})[contender] = value
    spread = {head: set(family.values()) for head, family in families.items()}
    within = {arm for family in families.values() for arm in _clashing_within(family, owner)}
    return {
        contender: value
        for head, family in families.items()
        for contender, value in family.items()
        if contender in within or any(other != head and spread[other] - {value} for other in spread)
    }


def _clashing_within(family: Mapping[Contender, Hashable], owner: str) -> Iterator[Contender]:
    """Of arms of one component, those that differ from another without an option in their names that says so."""
    if len(set(family.values())) < 2:
        return
    by_name: dict[Name | None, set[Hashable]] = {}
    for contender, value in family.items():
        by_name.setdefault(contender.components.get(owner), set()).add(value)
    yield from (arm for arm in family if len(by_name[arm.components.get(owner)]) > 1)
    if owner == "pool" and len({arm.set_options for arm in family}) > 1:
        mains = {contender: _MainInName.of(contender) for contender in family}
        if len({main.unnamed for main in mains.values()}) > 1:
            yield from (arm for arm, main in mains.items() if any(map(main.is_hidden_from, mains.values())))


@dataclass(frozen=True)
class _MainInName:
    """The options of a main model, and whether the pool's name gives them.

    Options of architectures can be set beside the names (``--set convnet.width=16``): where that is not equal for two
    arms, the options in which their main models differ must stand in their names.
    """

    options: frozenset[str]
    unnamed: frozenset[str]

    @classmethod
    def of(cls, contender: Contender) -> "_MainInName":
        """Describe the main model of an arm."""
        pool, main = str(contender.components.get("pool", "")), contender.main_model
        options = frozenset(f"{key}={value}" for key, value in main.options) if main else frozenset[str]()
        return cls(options, frozenset(text for text in options if text not in pool))

    def is_hidden_from(self, other: "_MainInName") -> bool:
        """Whether the main models differ in an option that the name of its arm does not give."""
        return not (self.unnamed <= other.options and other.unnamed <= self.options)


def _head(contender: Contender, owner: str) -> str | None:
    """The name of the arm's component without its options."""
    name = contender.components.get(owner)
    return name.name if name else None
