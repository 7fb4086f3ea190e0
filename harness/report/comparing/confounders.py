"""Confounders: quantities in which the arms of a comparison differ beside the axis that is compared."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import few
from harness.types.names import Name

MARK = "WARNING: "
"""Begins each line about numbers that may not be comparable."""


@dataclass(frozen=True, eq=False)
class Contender:
    """The properties of an arm that a fair comparison depends on; None if unknown or not applicable.

    Attributes:
        names: by axis, the arm's value as it stands in tables.
        components: by axis, the parsed name of the arm's component there.
        main_model: the pool's main architecture with its options.
        training_images: fingerprint of the images that it was distilled from.
        storage: number of stored numbers of its set.
        pixels: number of values that its set will store, as far as is known before it exists, in place of ``storage``.
        iterations: number of updates of the set.
        epochs: number of epochs of its students.
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
    """Contenders that are compared along axes; everything else that has a name is equal."""

    axes: tuple[str, ...]
    contenders: Sequence[Contender]


Value = Callable[[Contender], Hashable | None]


@dataclass(frozen=True)
class _Quantity:
    """A quantity that must be equal for a fair comparison.

    Attributes:
        name: what it is called in warnings.
        of: functions that return its value for a contender, None if unknown; the one that most contenders know is
            used.
        remedy: what to do if it differs.
        owner: the axis whose options decide it: of components that differ only in options, the values are compared.
        implied_by: axes that change it by their nature.
        only_by: axes along which it is checked; empty for all.
        explained: whether options in the names of one component explain a difference.
        show: formats a value.
    """

    name: str
    of: tuple[Value, ...]
    remedy: str
    owner: str | None = None
    implied_by: frozenset[str] = frozenset()
    only_by: frozenset[str] = frozenset()
    explained: bool = True
    show: Callable[[Any], str] = str

    def concerns(self, axes: Iterable[str]) -> bool:
        """Return whether a comparison along these axes must hold the quantity equal."""
        along = set(axes)
        return not along & self.implied_by and (not self.only_by or bool(along & self.only_by))


def _option(kind: str, name: str) -> Value:
    """Return a function for the value of an option of a kind; ``auto`` if it is left to the component."""

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
        "storage", (lambda arm: arm.storage, lambda arm: arm.pixels),
        "compare sets of the same size, or say --equal-storage in ddbench compare", "method",
        # An option such as `as` changes the budget, which is what a fair comparison of it has to hold equal.
        implied_by=frozenset({"ipc", "dataset"}), explained=False, show=lambda number: f"{number:,} numbers",
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
    """Return a line that names the arms which differ in more than what is compared; None if there are none."""
    every = list(comparisons)
    differences = [text for quantity in _QUANTITIES if (text := _difference(quantity, every))]
    return f"{MARK}arms differ in more than what is compared: {'; '.join(differences)}" if differences else None


def _difference(quantity: _Quantity, comparisons: Sequence[SideBySide]) -> str | None:
    """Describe how a quantity differs in the first comparison, and in how many others it does; None if in none."""
    texts: dict[str, None] = {}
    for comparison in comparisons:
        if quantity.concerns(comparison.axes) and (clashing := _clashing(quantity, comparison)):
            texts[_sentence(quantity, clashing, comparison.axes)] = None
    if not texts:
        return None
    # One sentence stands for all: a warning that nobody finishes reading warns of nothing.
    first, others = next(iter(texts)), len(texts) - 1
    more = f", and otherwise in {others} more comparison{'s' if others > 1 else ''}" if others else ""
    return f"{quantity.name}: {first}{more} ({quantity.remedy})"


def _sentence(quantity: _Quantity, clashing: Mapping[Contender, Hashable], axes: Sequence[str]) -> str:
    by_value: dict[Hashable, dict[str, None]] = {}
    for contender, value in clashing.items():
        by_value.setdefault(value, {})[_label(contender, quantity, axes)] = None
    return few([f"{quantity.show(value)} in {few(list(labels))}" for value, labels in by_value.items()], ", but ")


def _label(contender: Contender, quantity: _Quantity, axes: Sequence[str]) -> str:
    """Name an arm by the axis that owns the quantity, or by all compared axes if none of them does."""
    along = [quantity.owner] if quantity.owner in axes else axes
    return " · ".join(name for axis in along if axis and (name := contender.names.get(axis)))


def _values(quantity: _Quantity, contenders: Sequence[Contender]) -> dict[Contender, Hashable]:
    """Return the known values by contender."""
    known = [{arm: value for arm in contenders if (value := of(arm)) is not None} for of in quantity.of]
    return max(known, key=len)


def _clashing(quantity: _Quantity, comparison: SideBySide) -> dict[Contender, Hashable]:
    """Return the values of contenders that differ from another one in more than what is compared."""
    values = _values(quantity, comparison.contenders)
    if len(set(values.values())) < 2:
        return {}
    owner = quantity.owner
    # No name on the compared axes can explain the difference.
    if owner is None or owner not in comparison.axes or not quantity.explained:
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
        # It differs from a value of another component, or from one of its own component with equal names.
        if contender in within or any(other != head and spread[other] - {value} for other in spread)
    }


def _clashing_within(family: Mapping[Contender, Hashable], owner: str) -> Iterator[Contender]:
    """Yield the arms of a component whose values differ although the options in their names do not."""
    if len(set(family.values())) < 2:
        return
    by_name: dict[Name | None, set[Hashable]] = {}
    for contender, value in family.items():
        by_name.setdefault(contender.components.get(owner), set()).add(value)
    yield from (arm for arm in family if len(by_name[arm.components.get(owner)]) > 1)
    # Only then can main models differ in options that no name shows.
    if owner == "pool" and len({arm.set_options for arm in family}) > 1:
        mains = {contender: _MainInName.of(contender) for contender in family}
        if len({main.unnamed for main in mains.values()}) > 1:
            yield from (arm for arm, main in mains.items() if any(map(main.is_hidden_from, mains.values())))


@dataclass(frozen=True)
class _MainInName:
    """The options of a main model, and those that the pool's name does not show.

    Options of architectures can be set separately from names (``--set convnet.width=16``): if two arms differ in this,
    their names must show the options in which their main models differ.
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
        """Return whether the main models differ in an option that the name of its arm does not show."""
        return not (self.unnamed <= other.options and other.unnamed <= self.options)


def _head(contender: Contender, owner: str) -> str | None:
    """Return the name of the arm's component without its options."""
    name = contender.components.get(owner)
    return name.name if name else None
