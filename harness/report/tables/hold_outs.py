"""Sets that were distilled without a validation split: every table shows it in the name of their data set."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.types.data.hold_out import HoldOut
from harness.types.plurals import counted
from harness.types.score import ChoiceRecord, Score


def with_known_hold_outs(scores: Sequence[Score]) -> list[Score]:
    """Return the scores with the hold-outs that records of earlier versions do not hold.

    A set on the same images as one that was scored on validation lacks the validation split.
    """
    # Records of earlier versions hold no hold-out, but the same training images betray it.
    without_split = {_training(score) for score in scores if score.score_on == "validation" and not score.from_file}
    return [
        replace(score, hold_out=HoldOut(None, None, score.seed)) if _is_silent(score, without_split) else score
        for score in scores
    ]


def with_hold_outs_in_names(scores: Sequence[Score]) -> list[Score]:
    """Qualify the data sets of scores on test by what was held out of the distillation, unless they already are."""
    return [
        score.qualified("dataset", _without(score)) if _lacks_images(score) and not _is_named(score) else score
        for score in scores
    ]


def hold_out_notes(scores: Sequence[Score]) -> list[str]:
    """Return a note for each data set whose validation split was scored or held out of the distillation."""
    lines: Counter[str] = Counter()
    for score in scores:
        if _lacks_images(score):
            lines[f"of sets distilled from fewer images: {score.typed_name('dataset')} ({_without(score)})"] += 1
    notes = [
        f"{counted(count, 'score')} {what}: they are kept apart from those of the whole training set"
        for what, count in lines.items()
    ]
    validated = (score for score in scores if score.hold_out and score.score_on == "validation")
    return notes + list(dict.fromkeys(f"{score.dataset}: validation is {score.hold_out}" for score in validated))


def choice_notes(choices: Iterable[ChoiceRecord], scores: Sequence[Score]) -> list[str]:
    """Return a note for each name among the scores that was chosen on validation."""
    chosen = (choice for choice in choices if any(choice.covers(score) for score in scores))
    lines = (
        f"{choice.value} was chosen on validation for {choice.option}"
        + (f" ({choice.hold_out})" if choice.hold_out else "")
        for choice in chosen
    )
    return list(dict.fromkeys(lines))


def _lacks_images(score: Score) -> bool:
    return score.score_on == "test" and score.hold_out is not None


def _without(score: Score) -> str:
    return f"without {score.hold_out}"


def _is_named(score: Score) -> bool:
    """Return whether the data set's name already says what was held out."""
    return _without(score) in score.qualifiers.get("dataset", "")


def _is_silent(score: Score, without_split: set[str | None]) -> bool:
    is_recorded = score.hold_out is not None or score.training_images is not None or score.from_file
    return not is_recorded and _training(score) in without_split


def _training(score: Score) -> str | None:
    """Return the identity of the training images; None if the record does not hold it."""
    return score.identities.get("dataset")
