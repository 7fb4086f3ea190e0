"""The contract of reports."""

from functools import cached_property
from typing import Any
from unittest import SkipTest

from harness.errors import UsageError
from harness.testing.contract import Contract, require
from harness.testing.small import small_problem, small_set
from harness.types.report import Origin, Report, Results, SetRecord
from harness.types.score import Score

MARKUP = "<script>alert(1)</script>"
"""A name with markup, which must be shown as text."""
_METHODS, _ARCHITECTURES, _REPEATS = ("first", f"second{MARKUP}"), ("mlp", "convnet"), range(3)


class ReportContract(Contract):
    """The obligations of every report, on results of two methods, three distillations and two architectures."""

    kind = "report"

    def test_suffix(self) -> None:
        """The file's suffix begins with a dot."""
        suffix = self.component().suffix
        require(isinstance(suffix, str) and suffix[:1] == "." and len(suffix) > 1, f"suffix is {suffix!r}")

    def test_renders(self) -> None:
        """It returns text or bytes, or says in one line what the results lack."""
        require(isinstance(self.content, str | bytes) and self.content, f"render() gives {type(self.content).__name__}")

    def test_renders_the_same(self) -> None:
        """The same results give the same content: it depends on no clock and no global generator."""
        require(self.content == self.component().render(self.results), "rendered again, it is another")

    def test_names_are_data(self) -> None:
        """In a page, a name with markup is shown as text."""
        if self.component().suffix != ".html":
            raise SkipTest("it is not a page")
        text = self.content if isinstance(self.content, str) else self.content.decode()
        # Names come from plugins and files of other people, and a page is opened in a browser.
        require(MARKUP not in text, "a method's name stands there as markup: escape it")

    def test_no_results(self) -> None:
        """Without results it says so: as content, or in a UsageError of one line."""
        try:
            self.component().render(Results(()))
        except UsageError as error:
            require("\n" not in str(error), f"the error has more than one line: {error}")

    def component(self) -> Report[Any]:
        """Return the report."""
        report: Report[Any] = self.resolved().make()
        return report

    @cached_property
    def content(self) -> str | bytes:
        """The report's content for the results."""
        try:
            return self.component().render(self.results)
        except UsageError as error:
            require("\n" not in str(error), f"the error has more than one line: {error}")
            raise SkipTest(str(error)) from error

    @cached_property
    def results(self) -> Results:
        """Scores and sets of a small study."""
        places = [(method, number) for method in _METHODS for number in _REPEATS]
        scores = [_score(method, number, name) for method, number in places for name in _ARCHITECTURES]
        origin = Origin(None, "it was made up", "0" * 64, "2026-01-01T00:00:00+00:00", {}, {}, {"device": "cpu"})
        return Results(
            tuple(scores),
            tuple(_set(method, number) for method, number in places),
            (),
            ("store",),
            {(score.store, score.key): origin for score in scores},
        )


def _set_key(method: str, number: int) -> str:
    return f"{_METHODS.index(method)}{number}".ljust(64, "a")


def _score(method: str, number: int, architecture: str) -> Score:
    place = 2 * number + _ARCHITECTURES.index(architecture)
    return Score(
        store="store",
        key=f"{_METHODS.index(method)}{place}".ljust(64, "b"),
        set_key=_set_key(method, number),
        dataset="small",
        ipc=1,
        iterations=2,
        method=method,
        pool="single",
        evaluator="plain",
        architecture=architecture,
        protocol="plain v1",
        precision="fp32",
        score_on="test",
        scored="images",
        seed=0,
        distillation=number,
        student=0,
        accuracy=0.5 + 0.05 * place,
        collapsed=False,
        status="done",
        device="cpu",
        seconds=1.0,
        peak_memory=10**8,
    )


def _set(method: str, number: int) -> SetRecord:
    return SetRecord(
        store="store",
        key=_set_key(method, number),
        dataset="small",
        ipc=1,
        iterations=2,
        method=method,
        pool="single",
        seed=0,
        distillation=number,
        status="done",
        seconds=1.0,
        storage_floats=3 * 256,
        scalars={"loss": (2.0, 1.0)},
        architectures=("convnet",),
        draws=((0,), (0,)),
        checksum="0" * 64,
        load=lambda: small_set(small_problem()),
    )
