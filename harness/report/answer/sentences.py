"""Three sentences made by rule from a matrix of verdicts: what was compared, what came out, and how sure it is."""

from collections.abc import Iterable, Sequence

from harness.report.answer.matrix import Matrix, MatrixCell, MatrixRow
from harness.report.comparing.verdict import HIGHER, LOWER, SAME, UNDECIDED, WORDS, in_summary
from harness.report.tables.wording import difference, labelled, percent, real_data_mark
from harness.types.plurals import count_range, counted, plural

_MOST_ARMS = 4
"""Up to so many arms are named in the question."""
_MOST_CELLS = 6
"""Up to so many verdicts are written with their numbers; more are counted."""
_VERBS = {SAME: f"makes {SAME}", UNDECIDED: f"is {UNDECIDED}", HIGHER: f"is {HIGHER}", LOWER: f"is {LOWER}"}
"""Verdicts as verbs, which *helps* and *hurts* are already."""


def sentences_of(matrix: Matrix) -> tuple[str, str, str]:
    """Return what was compared, the verdicts, and what they rest on, a sentence each."""
    return _question(matrix), _verdicts(matrix), _certainty(matrix)


def _question(matrix: Matrix) -> str:
    """Say which arms are compared, on what, and whose accuracy it is about."""
    number, names = len(matrix.others), list(matrix.others.values())
    arms = _join(names) if number <= _MOST_ARMS else counted(number, matrix.by)
    methods = [f"{matrix.methods} methods"] if matrix.methods > 1 else []
    where = ", ".join([*methods, *matrix.shared])
    students = matrix.over or "students"
    compared = (
        f"{arms} {plural(number, 'is', 'are')} compared with {matrix.baseline} by the mean accuracy of {students}"
    )
    return f"{compared}{labelled(': ', where)}."


def _verdicts(matrix: Matrix) -> str:
    """Say of each arm what it does, with its numbers if they are few."""
    named = len(matrix.cells) <= _MOST_CELLS
    clauses = []
    for label, name in matrix.others.items():
        cells = [(row, row.cells[label]) for row in matrix.rows if label in row.cells]
        if named:
            clauses.append(f"{name} {_named(cells, len(matrix.rows) == 1)}")
            continue
        # Apart: a count over both would set what used real data against what did not.
        for real in (False, True):
            if part := [(row, cell) for row, cell in cells if row.real_data == real]:
                clauses.append(f"{name}{labelled(' ', real_data_mark(real))}: {_counted(part)}")
    return f"{'; '.join(clauses)}."


def _counted(cells: Sequence[tuple[MatrixRow, MatrixCell]]) -> str:
    """Count verdicts, with the least and the largest difference."""
    verdicts = in_summary((cell.verdict for _, cell in cells), "row")
    low, *_, high = sorted([cell.effect.estimate.difference for _, cell in cells] * 2)
    differences = percent(low, signed=True) if low == high else f"{percent(low, True)} to {percent(high, True)}"
    return f"{verdicts} ({differences})"


def _named(cells: Sequence[tuple[MatrixRow, MatrixCell]], alone: bool) -> str:
    parts = []
    for word in WORDS:
        with_word = [(row, cell) for row, cell in cells if cell.verdict.word == word]
        if with_word and alone:
            parts.append(f"{_VERBS.get(word, word)} ({_join(_numbers(cell) for _, cell in with_word)})")
        elif with_word:
            rows = _join(f"{_for_row(word, row)}, {_numbers(cell)}" for row, cell in with_word)
            parts.append(f"{_VERBS.get(word, word)} {rows}")
    return _join(parts)


def _for_row(word: str, row: MatrixRow) -> str:
    """Put a row's name behind a verb: ``helps dm``, ``is undecided for dm``, ``is undecided with kd``."""
    return f"for {row.name}" if word in _VERBS and not row.name.startswith("with ") else row.name


def _numbers(cell: MatrixCell) -> str:
    estimate = cell.effect.estimate
    return f"{difference(estimate.difference, estimate.low, estimate.high)}{cell.mark}"


def _certainty(matrix: Matrix) -> str:
    """Say what the intervals rest on, and what it would take to decide what is undecided."""
    cells = [cell for _, _, cell in matrix.cells]
    halves = [
        (cell.effect.estimate.high - cell.effect.estimate.low) / 2
        for cell in cells
        if cell.effect.estimate.low is not None and cell.effect.estimate.high is not None
    ]
    counts = count_range([cell.distillations for cell in cells], "distillation")
    if not halves or all(cell.effect.of_one_set for cell in cells):
        return f"There is {counts} of each, which says nothing about other sets: nothing can be decided."
    low, high = percent(min(halves)), percent(max(halves))
    width = f"±{low}" if low == high else f"±{low} to ±{high}"
    basis = f"Brackets are {100 * matrix.level:g}\u00a0% intervals in points ({width}), from {counts} of each"
    need = _need([cell for cell in cells if cell.verdict.word == UNDECIDED])
    return f"{basis}{labelled('; ', matrix.correction)}; {need}."


def _need(undecided: Sequence[MatrixCell]) -> str:
    """Say how many more distillations decide what is undecided, as far as that is known."""
    if not undecided:
        return "nothing is undecided"
    known = sorted((cell for cell in undecided if cell.more is not None), key=lambda cell: cell.more or 0)
    if not known:
        return f"to decide what is undecided takes {undecided[0].verdict.remedy}"
    fewest, most = known[0].more, known[-1].verdict.remedy
    needed = most if fewest == known[-1].more else f"about {fewest:,} to {most.removeprefix('about ')}"
    unknown = len(undecided) - len(known)
    beside = f" (unknown for {unknown} of {len(undecided)})" if unknown else ""
    return f"to decide what is undecided takes {needed}{beside}"


def _join(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
