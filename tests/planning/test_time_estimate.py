"""The words for the time that a plan takes."""

import pytest
from studies import ddbench, small_run, small_words

from harness.planning.time_estimate import format_estimate


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "an unknown time"),
        (0.0, "less than a second"),
        (0.99, "less than a second"),
        (1.0, "about 1 s"),
        (59.6, "about 1 min 0 s"),
        (3725.0, "about 1 h 2 min"),
    ],
)
def test_durations_are_read_by_people(seconds, words):
    assert format_estimate(seconds) == words


def test_a_small_plan_takes_less_than_a_second_and_a_finished_one_has_no_time(data, tmp_path):
    words = small_words(data, tmp_path / "store")
    planned = ddbench("run", *words, "--dry-run").stdout
    assert "3 of 3 cells are missing, less than a second on cpu" in planned
    small_run(data, tmp_path / "store")
    done = ddbench("run", *words, "--dry-run").stdout
    assert "0 of 3 cells are missing\n" in done
