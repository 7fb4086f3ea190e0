"""From scores to the answer of a question, with its notes and warnings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.errors import UsageError
from harness.report.comparing.ambiguous_names import distinguish
from harness.report.comparing.comparison_rows import ComparisonRow, rows_of
from harness.report.comparing.comparison_warnings import warnings_of
from harness.report.comparing.effects import correct_for_many_tests
from harness.report.comparing.equal_storage import of_equal_storage
from harness.report.comparing.metrics import with_metric
from harness.report.comparing.question import Question, in_natural_order, value_of
from harness.report.scores import Score, Scores
from harness.report.tables.hold_outs import choice_notes, hold_out_notes
from harness.types.plurals import counted, plural


@dataclass(frozen=True, eq=False)
class Comparison:
    """The answer to a question: the rows of a comparison, with its notes and warnings.

    Attributes:
        question: what was asked.
        baseline: the value that the others are compared with.
        others: the other values, in order.
        rows: a row for every condition in which the baseline or another value has scores.
        family: number of tests in Holm's correction.
        stores: the folders that were read.
        notes: what was left out or is doubtful, a line each.
        warnings: why rows or columns may not be comparable, a line each.
    """

    question: Question
    baseline: str
    others: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]
    family: int
    stores: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The compared values: the baseline and then the others."""
        return (self.baseline, *self.others)


def compare(stored: Scores, question: Question) -> Comparison:
    """Answer a question from scores.

    Raises:
        UsageError: the question names something that no score has.
    """
    # Copies of a cell count once, unless the copies in different stores are what is compared.
    by = question.by
    scores, repeated = (list(stored.scores), []) if by == "store" else without_duplicates(stored.scores)
    scores, distinctions = distinguish(scores, by == "store")
    chosen, baseline = question.choose(scores)
    with_value = [score for score in chosen if value_of(score, by) is not None]
    compared, unmeasured = with_metric(with_value, question.metric, by)
    left = sorted({score.method for score in chosen if value_of(score, by) is None})
    storage_notes: list[str] = []
    if question.equal_storage:
        compared, storage_notes = of_equal_storage(compared, by, baseline, question.metric)
    labels = in_natural_order(str(getattr(score, by)) for score in compared)
    others = tuple(label for label in labels if label != baseline)
    # After filtering: the family of tests is what is shown, nothing else.
    rows, family = _correct_rows(rows_of(compared, question, baseline), question.level)
    if not rows and question.over:
        wanted = ", ".join(question.over)
        raise UsageError(f"--over {wanted}: there is no such row; all, others and gap take two architectures or more")
    notes = [*stored.notes, *repeated, *distinctions, *storage_notes]
    notes += [*(f"{name} has no {by}: left out" for name in left), *unmeasured]
    unqualified = _with_stored_names(compared, stored.scores)
    notes += [*hold_out_notes(unqualified), *choice_notes(stored.choices, unqualified)]
    notes += _elsewhere(scores, question)
    warnings = warnings_of(rows, by)
    return Comparison(question, baseline, others, tuple(rows), family, stored.stores, tuple(notes), warnings)


def without_duplicates(scores: Sequence[Score]) -> tuple[list[Score], list[str]]:
    """Return each student once, from the first store that has it, and notes on those in several stores."""
    first: dict[str, Score] = {}
    again = [score for score in scores if first.setdefault(score.key, score) is not score]
    if not again:
        return list(scores), []
    differing = sum(_numbers(first[score.key]) != _numbers(score) for score in again)
    note = f"{counted(len(again), 'score is', 'scores are')} in several stores: the first store's are taken"
    return list(first.values()), [f"{note}; {differing} of them differ between the stores" if differing else note]


def _numbers(score: Score) -> tuple[object, ...]:
    return score.accuracy, score.metrics


def _with_stored_names(scores: Sequence[Score], every: Sequence[Score]) -> list[Score]:
    """Return the scores with the names of their records, without qualifiers."""
    keys = {(score.store, score.key) for score in scores}
    return [score for score in every if (score.store, score.key) in keys]


def _elsewhere(scores: Sequence[Score], question: Question) -> Iterator[str]:
    count = sum(score.score_on != question.score_on for score in scores)
    if count:
        other = "validation" if question.score_on == "test" else "test"
        yield f"{counted(count, 'score')} on {other} {plural(count, 'is', 'are')} left out: --score-on {other}"


def _correct_rows(rows: Sequence[ComparisonRow], level: float) -> tuple[list[ComparisonRow], int]:
    """Return the rows with p values adjusted for all tests, and the number of tests."""
    effects = [effect for row in rows for effect in row.effects.values()]
    # Over all rows at once: Holm's method needs the whole family.
    adjusted = iter(correct_for_many_tests(effects, level))
    adjusted_rows = [replace(row, effects={label: next(adjusted) for label in row.effects}) for row in rows]
    return adjusted_rows, sum(effect.estimate.p is not None for effect in effects)
