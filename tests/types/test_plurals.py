import pytest

from harness.types.plurals import count_range, counted, plural


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 students"), (1, "1 student"), (2, "2 students"), (1234, "1,234 students")]
)
def test_a_count_has_its_noun_in_the_right_form(number, words):
    assert counted(number, "student") == words
    assert counted(number, "class", "classes").endswith("class" if number == 1 else "classes")


def test_ranges_and_verbs():
    assert count_range([3, 1, 2], "set") == "1 to 3 sets"
    assert count_range([1, 1], "set") == "1 set"
    assert count_range([], "set") == "0 sets"
    assert (plural(1, "is", "are"), plural(2, "is", "are")) == ("is", "are")
