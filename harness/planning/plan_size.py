"""Number of cells that a request asks for: counted before any of them, or any swept name, is made."""

from collections.abc import Iterator, Sequence

from harness.datasets.problems import traits_of
from harness.errors import PluginError, UsageError
from harness.planning.planner import NO_DEFAULTS, Planner
from harness.planning.request import Request
from harness.plugins.registry import Entry
from harness.types.dataset import RunDefaults
from harness.types.names import count_variants, first_variant

_UNREADABLE = 10**40
"""A number whose digits nobody reads, and of which Python writes only so many."""


def check_size(planner: Planner, of_file: bool = False) -> None:
    """Refuse a request for more cells than it may have.

    Args:
        planner: resolves the names of the request.
        of_file: students are trained on one set that is there, in place of those that methods learn.

    Raises:
        UsageError: it asks for more sets and students than `Request.max_cells`, or a name is unknown.
    """
    request = planner.request
    cells = sum(count * _cells_on(planner, defaults, of_file) for count, defaults in _datasets(planner))
    if cells > request.max_cells:
        raise UsageError(
            f"this plan has {_as_read(cells)} sets and students, more than --max-cells {request.max_cells:,}: "
            "sweep fewer values, ask for fewer students or distillations, or raise --max-cells"
        )


def _as_read(number: int) -> str:
    return f"{number:,}" if number < _UNREADABLE else f"more than 10^{len(str(_UNREADABLE)) - 1}"


def _datasets(planner: Planner) -> Iterator[tuple[int, RunDefaults]]:
    """Yield the data sets that were asked for: how many are alike, and the defaults of a run on them."""
    for text in planner.request.dataset:
        if text.strip() == "all":
            every = planner.names("dataset", ["all"], NO_DEFAULTS)
            yield from ((1, traits_of(dataset).defaults) for dataset in every)
        else:
            # One variant stands for all, whose defaults are the same: to expand them is what must not happen here.
            dataset = planner.complete("dataset", first_variant(text), NO_DEFAULTS)
            yield count_variants(text)[1], traits_of(dataset).defaults


def _cells_on(planner: Planner, defaults: RunDefaults, of_file: bool) -> int:
    request = planner.request
    evaluators = _count_names(planner, "evaluator", request.evaluator or defaults.evaluators)
    architectures = _count_names(planner, "architecture", request.architecture or defaults.architectures)
    sets = 1 if of_file else _count_sets(planner, defaults)
    distillations = 1 if of_file else request.distillations or defaults.distillations
    students = evaluators * architectures * (request.students or defaults.students)
    return sets * distillations * ((0 if of_file else 1) + students)


def _count_sets(planner: Planner, defaults: RunDefaults) -> int:
    """Return the number of sets of one distillation."""
    request: Request = planner.request
    pools = _count_names(planner, "pool", request.pool)
    sizes = len(set(request.ipc or defaults.ipc))
    points = len(set(request.iterations or defaults.iterations))
    total = 0
    for entry, count in _entries(planner, "method", request.method):
        method = entry.load()
        crossed = (pools if method.uses_pool else 1) * (sizes if method.uses_ipc else 1)
        total += count * crossed * (points if method.iterates else 1)
    return total


def _count_names(planner: Planner, kind: str, texts: Sequence[str]) -> int:
    return sum(count for _, count in _entries(planner, kind, texts))


def _entries(planner: Planner, kind: str, texts: Sequence[str]) -> Iterator[tuple[Entry, int]]:
    """Yield the components that texts name, each with the number of its variants; equal texts count once."""
    for text in dict.fromkeys(map(str.strip, texts)):
        if text == "all":
            yield from ((entry, 1) for entry in planner.registry.of_kind(kind) if _can_be_loaded(entry))
        else:
            name, count = count_variants(text)
            yield planner.registry.find(kind, name), count


def _can_be_loaded(entry: Entry) -> bool:
    try:
        entry.load()
    except PluginError:  # the plan leaves it out, and says so
        return False
    return True
