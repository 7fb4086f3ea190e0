"""Labels of arms: scores under the names that users gave to methods, pools, evaluators and so on."""

from collections.abc import Sequence
from dataclasses import replace

from harness.errors import UsageError, did_you_mean
from harness.report.comparing.question import values_meant_by
from harness.report.scores import Scores
from harness.types.names import name_or_text, read_labels
from harness.types.score import COMPONENTS


def with_labels(stored: Scores, typed: Sequence[str] = ()) -> Scores:
    """Return the scores with labels in place of names: those that were typed, then those of the stores' runs.

    Raises:
        UsageError: a label is not possible, stands for nothing or for several names, or is the name of another arm.
    """
    labels = _typed_labels(stored, typed)
    names = {name for score in stored.scores for field in COMPONENTS if (name := score.full_name(field))}
    for name, label in stored.labels.items():
        if name in names and name not in labels and label not in {*labels.values(), *names}:
            labels[name] = label
    return replace(stored, scores=tuple(score.labelled(labels) for score in stored.scores)) if labels else stored


def _typed_labels(stored: Scores, typed: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    names = [name for score in stored.scores for field in COMPONENTS if (name := score.full_name(field))]
    every = list(dict.fromkeys(names))
    for label, text in read_labels(typed).items():
        meant = list(
            dict.fromkeys(name for field in COMPONENTS for name in values_meant_by(text, stored.scores, field))
        )
        if not meant:
            raise UsageError(f"--label {label}={text}: no score has this name: {did_you_mean(text, every)}")
        if len(meant) > 1:
            raise UsageError(f"--label {label}={text} stands for several arms: write one of {', '.join(meant)}")
        others = set(every) - {meant[0]}
        if label in {*others, *(name_or_text(name).name for name in others)}:
            raise UsageError(f"--label {label}={text}: {label} is the name of another arm: choose another label")
        if labels.setdefault(meant[0], label) != label:
            raise UsageError(f"{meant[0]} has the labels {labels[meant[0]]!r} and {label!r}: give it one")
    return labels
