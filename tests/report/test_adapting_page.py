"""The page of pools that adapt: probabilities and probes over iterations; and choices among numbers as a curve."""

import statistics

import pytest
import toy_pools
from pages import Page, tables
from studies import METHOD, small_run

from harness.plugins.discovery import plugins
from harness.report.page.choices import choices_section, numeric_values
from harness.report.page.page import Page as PageReport
from harness.report.page.page import PageOptions
from harness.report.page.pools.draws import draws_of
from harness.report.results import read_results
from harness.types.score import ChoiceRecord

pytestmark = pytest.mark.usefixtures("blank_pictures")

MAIN = "main=convnet[width=4,depth=1]"
PROBING = (
    f"adaptive[{MAIN},others=mlp[width=4],probabilities=0.2+0.9,every=2,panel=mlp[width=8],evaluator=plain[epochs=1]]"
)
SINGLE = f"single[{MAIN}]"
WATCHING = f"adaptive[{MAIN}:0.5,others=mlp[width=4],strategy=conflict]"


@pytest.fixture(scope="module", autouse=True)
def pools():
    """The toy pools are installed."""
    with toy_pools.installed():
        yield


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    """Three pools that adapt, one of them without a main architecture, two that do not, and a choice."""
    store = tmp_path_factory.mktemp("adapting")
    study = {"method": METHOD, "iterations": 4, "students": 1, "evaluator": "plain[epochs=1]"}
    small_run(data, store, pool=[PROBING, WATCHING, SINGLE], distillations=2, **study)
    small_run(data, store, pool=["together", "single[main=lenet]"], **study)
    swept = "main=[convnet[width=4,depth=1]:0.3,convnet[width=4,depth=1]:0.9]"
    small_run(data, store, pool=f"main-similar[{swept},others=mlp[width=4]]", choose="main-similar.main", **study)
    return store


@pytest.fixture(scope="module")
def text(store):
    """The page about the store."""
    results = read_results([store], plugins().registry)
    return PageReport(PageOptions()).render(results)


def test_the_page_shows_probabilities_and_probes(text):
    pictures = [image["attrs"]["alt"] for image in Page(text).all("img")]
    assert any(alt.startswith("Curves of probability of main over iteration") for alt in pictures)
    (probes,) = [alt for alt in pictures if alt.startswith("Curves of accuracy of probes")]
    assert "conflict" not in probes, "that pool asks for none"
    assert "together" in probes, "it is probed, though it has no main architecture"


def test_the_table_holds_probabilities_probes_and_the_realised_mix(text):
    (rows,) = [rows for caption, rows in tables(text).items() if "main architecture's probability" in caption]
    by_pool = {row[0]: row[1:] for row in rows if len(row) == 9 and row[0] != "pool"}
    probing, watching = (next(row for name, row in by_pool.items() if word in name) for word in ("every=2", "conflict"))
    assert float(watching[0]) == pytest.approx(0.5)
    assert (probing[4], watching[4]) == ("2", "–")
    for row in (probing, watching):
        assert 0 <= float(row[3]) <= 1
    assert by_pool["together"][:5] == ["–", "–", "–", "–", "2"]
    assert by_pool["together"][-1] == "–", "of no architecture alone would the iterations be comparable"
    for row in (probing, watching):
        assert float(row[6]) >= 0


def test_the_table_says_how_many_iterations_of_single_cost_as_much(text, store):
    (rows,) = [rows for caption, rows in tables(text).items() if "main architecture's probability" in caption]
    sets = read_results([store], plugins().registry).sets
    # Those of another main architecture take another time.
    single = [each for each in sets if each.pool == SINGLE]
    a_second = sum(each.iterations for each in single) / sum(each.seconds for each in single)
    for word in ("every=2", "conflict"):
        (shown,) = [row[-1] for row in rows if len(row) == 9 and word in row[0]]
        seconds = statistics.fmean(each.seconds for each in sets if word in each.pool)
        assert shown == f"{seconds * a_second:.0f}"


def test_a_choice_among_probabilities_is_drawn(text):
    texts = [image["attrs"]["alt"] for image in Page(text).all("img")]
    (drawn,) = [alt for alt in texts if "over main-similar.main" in alt]
    assert "accuracy on validation, %" in drawn


def test_expected_draws_have_the_options_that_were_set_for_architectures(data, tmp_path):
    pool = "mix[of=convnet[depth=1]:0.5+mlp[width=4]:0.5]"
    for width in (4, 8):
        study = {"method": METHOD, "pool": pool, "iterations": width, "students": 1}
        small_run(data, tmp_path, set=[f"convnet.width={width}"], **study)
    results = read_results([tmp_path], plugins().registry)
    draws = draws_of(pool, results.sets, plugins().registry, pool)
    assert draws.expected == {"convnet[width=4,depth=1]": 2.0, "convnet[width=8,depth=1]": 4.0, "mlp[width=4]": 6.0}
    assert set(draws.counts) <= set(draws.expected)


def choice(curve, option="main-similar.main"):
    return ChoiceRecord("store", "00", option, next(iter(curve)), curve, {}, None)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["main-similar[main=1.0]", "main-similar[main=0.5]"], {"convnet": [0.5, 1.0]}),
        (["main-similar[main=0.5]", "main-similar[main=convnet:0.7]", "main-similar"], {"convnet": [0.5, 0.7, 0.9]}),
        (["main-similar[main=0.5]", "main-similar[main=1]", "main-similar[main=vit[depth=1]:0.7]"],
         {"convnet": [0.5, 1.0], "vit[depth=1]": [0.7]}),
        (["main-similar[main=lenet]", "main-similar[main=lenet:0.5]"], {"lenet": [0.5, 0.9]}),
        ([f"main-similar[main={main}:{number}]" for main in ("convnet", "lenet") for number in (0.5, 0.9)],
         {"convnet": [0.5, 0.9], "lenet": [0.5, 0.9]}),
        (["main-similar[main=convnet:0.9]", "main-similar[main=lenet:0.9]"], {}),
        (["main-similar[main=0.5]", "main-similar[main=lenet]"], {}),
    ],
)  # fmt: skip
def test_values_that_are_numbers_are_a_curve_for_each_main_architecture(names, values):
    of_choice = choice({name: number / 10 for number, name in enumerate(names)})
    curves = numeric_values(of_choice, "convnet:0.9")
    assert {architecture: list(curve) for architecture, curve in curves.items()} == values
    # With a legend if there are several.
    expected = min(len(values), 2)
    assert len(choices_section([of_choice], plugins().registry).parts[0].pictures) == expected


def test_options_that_hold_numbers_alone_are_a_curve_too():
    of_choice = choice({"kd[temperature=1]": 0.1, "kd": 0.3, "kd[temperature=2]": 0.2}, "kd.temperature")
    default = plugins().registry.find("evaluator", "kd").load().Options.fields_by_name()["temperature"].default
    assert len(choices_section([of_choice], plugins().registry).parts[0].pictures) == 1
    assert sorted(numeric_values(of_choice, str(default))[""]) == sorted([1.0, 2.0, default])
