"""The page, read by the standard library's parser and held against the records that it was made from."""

import base64
import hashlib
import io
import json
import re
import shlex
import statistics
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from pages import CHROMIUM, LOADING, Page, browse, browse_at, tables
from PIL import Image
from studies import EVALUATOR, POOL, ddbench, records, small_run, write_arrays
from synthetic import set_record, student_record, write_store

from harness.cli.commands.run import run
from harness.cli.options import values_of
from harness.planning.planner import Planner
from harness.plugins.discovery import plugins
from harness.report.results import read_results
from harness.store.cells import canonical_json

OTHER = "mix[of=convnet[width=4,depth=2]:0.5+mlp[width=8]:0.5]"
STUDY = {
    "method": ["dc[batch_real=4]", "dm[batch_real=4]", "random", "whole"],
    "pool": [POOL, OTHER],
    "architecture": ["mlp[width=8]", "convnet[width=4,depth=2]"],
    "iterations": [0, 2],
    "distillations": 2,
}
HOSTILE = "<script>alert(1)</script>"
"""As a plugin of somebody's store may be called; ours may not."""
FOLDER = "<script>alert('é')<&amp;>"
"""As a folder of a class may be called."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    small_run(write_arrays(folder / "stripes.npz"), folder / "store", **STUDY)
    return folder / "store"


@pytest.fixture(scope="module")
def text(store, tmp_path_factory):
    return written(store, tmp_path_factory.mktemp("written") / "page.html")


def written(store, file, *words):
    result = ddbench("report", store, "--output", file, *words)
    assert result.exit_code == 0, result.output
    assert str(file) in result.stdout
    return file.read_text()


# --- one file, and only that ------------------------------------------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere(text):
    page = Page(text)
    for element in page.elements:
        for name, value in element["attrs"].items():
            assert not name.startswith("on"), name
            assert name != "style"
            if name in LOADING:
                assert value.startswith("data:image/"), (element["tag"], name, value[:60])
            if name in ("href", "xlink:href"):
                assert (element["tag"], value[0]) == ("a", "#")
        assert element["tag"] not in ("script", "link", "iframe", "object", "embed", "base", "form", "video", "audio")
    (style,) = page.all("style")
    for word in ("url(", "@import", "@font-face", "expression", "src:", "http"):
        assert word not in style["text"]


def test_the_policy_lets_nothing_in_but_the_pictures_and_our_style(text):
    page = Page(text)
    (policy,) = [element["attrs"]["content"] for element in page.all("meta") if "http-equiv" in element["attrs"]]
    digest = hashlib.sha256(page.all("style")[0]["text"].encode()).digest()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert "script-src" not in rules


def test_pictures_are_whole_and_load_nothing_themselves(text):
    pictures = Page(text).all("img")
    kinds = {decoded(picture["attrs"]["src"]) for picture in pictures}
    assert kinds == {"png", "svg"}
    for picture in pictures:
        assert len(picture["attrs"]["alt"]) > 10
        assert int(picture["attrs"]["width"]) > 0
        assert int(picture["attrs"]["height"]) > 0


def decoded(source):
    """The kind of a picture in a data URI, after checking that it can be read and refers to nothing outside."""
    head, content = source.split(";base64,")
    raw = base64.b64decode(content)
    if head == "data:image/png":
        Image.open(io.BytesIO(raw)).load()
        return "png"
    root = ElementTree.fromstring(raw)
    assert root.tag.endswith("svg")
    for element in root.iter():
        assert not element.tag.endswith(("script", "foreignObject"))
        for name, value in element.attrib.items():
            if name.endswith("href"):
                assert value.startswith(("#", "data:image/png;base64,"))
            assert "url(" not in value or "url(#" in value
    assert "@import" not in raw.decode()
    return "svg"


def test_ids_are_unique_and_what_refers_to_one_finds_it(text):
    page = Page(text)
    ids = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert set(element["attrs"].get(name, "").split()) <= set(ids)
        if element["tag"] == "a":
            assert element["attrs"]["href"][1:] in ids
    assert [element["tag"] for element in page.elements].count("h1") == 1
    assert page.all("html")[0]["attrs"]["lang"] == "en"


def test_every_table_can_be_read_aloud(text):
    page = Page(text)
    assert len(page.all("table")) == len(page.all("caption")) > 5
    for head in page.all("th"):
        assert head["attrs"]["scope"] in ("col", "row", "rowgroup")
    for part in re.findall(r"<table.*?</table>", text, re.DOTALL):
        columns = part.count('scope="col"')
        assert columns > 1
        for row in re.findall(r"<tr.*?</tr>", part, re.DOTALL):
            assert "<th" in row
            assert "colspan" in row or len(re.findall(r"<t[hd]", row)) == columns


def test_the_same_records_give_the_same_page(store, text, tmp_path):
    assert written(store, tmp_path / "page.html") == text


# --- names are data ---------------------------------------------------------------------------------------------------


def altered(store, old, new):
    """Rename things in all records of a store, with checksums that are right again."""
    for path in (store / "cells").glob("??/*/record.json"):
        record = json.loads(path.read_text().replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1]))
        record.pop("checksum")
        record["checksum"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
        path.write_text(json.dumps(record))


def test_a_plugin_that_is_called_like_a_script_shows_as_text(data, tmp_path):
    small_run(data, tmp_path / "store", distillations=2, pool=[POOL, OTHER])
    altered(tmp_path / "store", "dc[batch_real=4]", HOSTILE)
    altered(tmp_path / "store", "mix[of=", f'{HOSTILE}"[of=')
    page = Page(written(tmp_path / "store", tmp_path / "page.html"))
    assert not page.all("script")
    assert page.text.count(HOSTILE) > 3
    titles = [element["text"] for element in page.all("figcaption")]
    assert any(HOSTILE in title for title in titles)
    assert any(HOSTILE in picture["attrs"]["alt"] for picture in page.all("img"))
    for picture in page.all("img"):
        decoded(picture["attrs"]["src"])


@pytest.mark.usefixtures("blank_pictures")
def test_a_class_folder_that_is_called_like_a_script_shows_as_text(tmp_path):
    for split, name in ((split, name) for split in ("train", "test") for name in (FOLDER, "other")):
        folder = tmp_path / "images" / split / name
        folder.mkdir(parents=True)
        for index in range(4):
            pixels = np.full((16, 16, 3), 60 * index + (name == "other"), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    small_run(None, tmp_path / "store", dataset=f"folder[path={tmp_path / 'images'},size=16]")
    page = Page(written(tmp_path / "store", tmp_path / "page.html"))
    assert not page.all("script")
    assert FOLDER in page.text


# --- numbers and commands are those of the records --------------------------------------------------------------------


def test_the_numbers_are_those_of_the_records(store, text):
    results = [record["result"] for record in records(store).values() if record["kind"] == "student"]
    by_caption = tables(text)
    (caption,) = [caption for caption in by_caption if "accuracy on test" in caption]
    columns, *rows = by_caption[caption]
    pool, checked = None, 0
    for row in rows:
        if len(row) == 1:
            pool = row[0]
            continue
        for architecture, cell in zip(columns[2:], row[2:], strict=True):
            scores = [
                result
                for result in results
                if (head(result["method"]), head(result["architecture"])) == (row[0], architecture)
                and (head(result["pool"]) or "real images, nothing learned") == pool
                and str(result["iterations"] or "") == row[1]
            ]
            groups = [[s["accuracy"] for s in scores if s["distillation"] == d] for d in (0, 1)]
            mean = 100 * statistics.fmean(s["accuracy"] for s in scores)
            between = 100 * statistics.stdev(statistics.fmean(group) for group in groups)
            within = 100 * statistics.fmean(statistics.variance(group) for group in groups) ** 0.5
            assert cell.startswith(f"{mean:.1f} ±{within:.1f} ±{between:.1f}"), (row[0], pool, architecture)
            assert len(scores) == 4
            checked += 1
    assert checked == 12
    assert columns[2:] == ["convnet", "mlp"]


def head(name):
    """The name without options, which is enough to distinguish names here."""
    return name and name.partition("[")[0]


def test_short_names_stand_beside_full_ones(store, text):
    page = Page(text)
    details = next(part for part in text.split("<details") if "Names in full" in part)
    listed = Page(f"<html><body><details{details.split('</details>')[0]}</details></body></html>")
    short, full = ([element["text"] for element in listed.all(tag)] for tag in ("dt", "dd"))
    results = [record["result"] for record in records(store).values() if record["kind"] == "student"]
    names = {result[field] for result in results for field in ("method", "pool", "evaluator", "architecture")}
    assert set(full) == {name for name in names if name and "[" in name}
    assert [head(name) for name in full] == short
    heads = [element["text"] for element in page.all("th") if element["attrs"]["scope"] == "col"]
    assert all(name not in text for text in heads for name in full)


def test_every_cell_stands_on_the_page_with_its_checksum(store, text):
    page = Page(text)
    students = [record for record in records(store).values() if record["kind"] == "student"]
    for record in students:
        assert record["key"][:16] in page.text
        assert record["checksum"][:16] in page.text
    assert text.count("<pre><code>") == len({tuple(r["result"][k] for k in NAMES) for r in students})


NAMES = ("method", "pool", "iterations", "evaluator", "architecture")


def keys_of(command):
    """The keys of the cells that a line of the page makes."""
    name, verb, *arguments = shlex.split(command)
    assert (name, verb) == ("ddbench", "run")
    with run.make_context("run", arguments, help_option_names=["-h", "--help"]) as context:
        of_output = ("config", "dry_run", "as_json", "published", "details")
        options = {key: value for key, value in context.params.items() if key not in of_output}
    plan = Planner(values_of(options, None), plugins().registry).plan()
    return {cell.key for cell in plan.cells if cell.kind == "student"}


def cells_by_command(store):
    results = read_results([store], plugins().registry)
    by_command = {}
    for score in results.scores:
        by_command.setdefault(results.origin(score).command, set()).add(score.key)
    return by_command


def test_each_command_makes_its_cells_and_no_others(store, text):
    page = Page(text)
    by_command = cells_by_command(store)
    assert {element["text"] for element in page.all("pre")} == set(by_command)
    for command, keys in by_command.items():
        assert keys_of(command) == keys


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "digits", "method": "dc[batch_real=256]"},
        {"score_on": "validation", "precision": "bf16", "seed": 3},
        {"set": ["convnet.width=6", "mlp.width=5"], "pool": "single", "architecture": "mlp", "method": "dm"},
        {"evaluator": "kd[epochs=2,teacher=convnet]", "set": ["convnet.width=4", "kd.temperature=3"]},
        {"method": "mtt[experts=1,train_epochs=3,expert_epochs=1,max_start_epoch=1,steps=2]", "iterations": [1, 2]},
    ],
    ids=["an option that the data set changes", "split, precision, seed", "set", "set for a teacher", "total"],
)
def test_commands_tell_all_that_decides_a_key(data, tmp_path, changes):
    small_run(data, tmp_path / "store", **changes)
    for command, keys in cells_by_command(tmp_path / "store").items():
        assert keys_of(command) == keys


@pytest.mark.usefixtures("blank_pictures")
def test_a_set_from_a_file_has_no_command_and_says_why(data, tmp_path):
    small_run(data, tmp_path / "first")
    (file,) = (tmp_path / "first").rglob("set.safetensors")
    words = ("--dataset", f"arrays[path={data}]", "--evaluator", EVALUATOR, "--architecture", "mlp[width=8]")
    assert ddbench("eval", file, *words, "--store", tmp_path / "store").exit_code == 0
    assert "ddbench eval FILE" in written(tmp_path / "store", tmp_path / "page.html")


@pytest.mark.usefixtures("blank_pictures")
def test_a_large_store_is_summarised_and_says_so(store, text, tmp_path):
    short = written(store, tmp_path / "page.html", "--report", "page[cells=5,pictures=2]")
    assert "more than the 5 that a page lists one by one" in short
    assert "more are not shown" in short
    without_pictures = [re.sub(r'src="data:[^"]*"', "", page) for page in (short, text)]
    assert len(without_pictures[0]) < len(without_pictures[1])
    assert Page(short).text.count("--evaluator") == Page(text).text.count("--evaluator")


def test_the_draws_are_those_of_the_histories(store, text):
    sets = [r for r in records(store).values() if r["kind"] == "distilled" and r["result"]["iterations"] == 2]
    counts = {}
    for record in sets:
        if record["result"]["pool"].startswith("mix"):
            for name, number in record["result"]["draws"].items():
                counts[name] = counts.get(name, 0) + number
    (rows,) = [rows for caption, rows in tables(text).items() if caption.startswith("mix:")]
    shown = {row[0]: (int(row[1]), float(row[2])) for row in rows if row[1].isdigit()}
    assert {name: drawn for name, (drawn, _) in shown.items() if drawn} == counts
    assert sum(expected for _, expected in shown.values()) == sum(counts.values()) == 8
    assert {expected for _, expected in shown.values()} == {4.0}
    assert {row[3] for row in rows[1:]} == {"0.5000"}


@pytest.mark.usefixtures("blank_pictures")
def test_published_numbers_stand_beneath_ours_in_grey_with_their_source(tmp_path):
    like = {"like": "cifar10", "preprocessing": "cifar10"}
    new_records = []
    for iterations in (1000, 1500):
        of = set_record(method="dc", pool="total-random", iterations=iterations)
        new_records += [
            of,
            student_record(of, architecture="mlp", **like),
            student_record(of, architecture="resnet34", **like),
        ]
        text = written(write_store(tmp_path / f"store{iterations}", new_records), tmp_path / "page.html")
        ((columns, _, ours, published),) = [rows for caption, rows in tables(text).items() if "accuracy on" in caption]
        otherwise = "" if iterations == 1000 else " made otherwise"
        assert columns == ["method", "iterations", "mlp", "resnet34"]
        assert ours[:3] == ["dc", f"{iterations:,}", "50.0"]
        assert published == ["published", "", f"10.3{otherwise}", ""]
        assert '<tr class="grey"><th scope="row" class="name">published' in text
        assert "Published: Zhou, Zhong, Chen (model pool), table 5" in text
        assert ("with 1000 iterations" in text) == bool(otherwise)
        new_records = []


# --- the summary ------------------------------------------------------------------------------------------------------


def summary(text):
    """The sentences at the top."""
    page = Page(text)
    return [element["text"] for element in page.all("p") if "div" in element["in"] and "class" not in element["attrs"]]


def test_the_summary_says_what_was_compared_and_what_came_out(text):
    question, verdicts, certainty = summary(text)
    assert re.match(r"mix is compared with single by the mean accuracy of ", question)
    assert ": 2 methods, arrays[path=" in question
    assert re.match(r"mix (helps|hurts|makes no difference above 1 point for|is undecided for) d[cm]", verdicts)
    assert len(re.findall(r"d[cm], [+−]\d+\.\d( \[[+−][\d.]+, [+−][\d.]+\])?", verdicts)) == 2
    assert "95\u00a0% intervals in points" in certainty
    assert "from 2 distillations of each" in certainty


def test_the_matrix_holds_the_differences_of_the_records(store, text):
    by_caption = tables(text)
    (caption,) = [
        caption for caption in by_caption if caption.startswith("Difference from single") and "mean" in caption
    ]
    _, *rows = by_caption[caption]
    results = [record["result"] for record in records(store).values() if record["kind"] == "student"]

    def mean(method, pool, distillation):
        values = [
            score["accuracy"]
            for score in results
            if (head(score["method"]), score["pool"], score["distillation"]) == (method, pool, distillation)
            and score["iterations"] == 2
            and ("all students" in caption or not score["architecture"].startswith("convnet"))
        ]
        return statistics.fmean(values)

    assert [row[0] for row in rows] == ["dc", "dm"]
    for method, cell in rows:
        difference = statistics.fmean(mean(method, OTHER, d) - mean(method, POOL, d) for d in (0, 1))
        # A dagger says that something went wrong in an arm: the students of so short a protocol give one class.
        assert re.match(re.escape(f"{100 * difference:+.1f}") + "†? ", cell.replace("−", "-"))
        assert re.search(r"(helps|hurts|no difference above 1 point|undecided: .*); 2 distillations each$", cell)


@pytest.mark.usefixtures("blank_pictures")
def test_one_distillation_decides_nothing_about_others(data, tmp_path):
    small_run(data, tmp_path / "store", pool=[POOL, OTHER])
    text = written(tmp_path / "store", tmp_path / "page.html")
    assert "undecided: at least 1 more distillation each" in text
    assert "how much sets of the same kind differ is unknown" in text
    assert 'class="number best"' not in text


@pytest.mark.usefixtures("blank_pictures")
def test_one_pool_is_compared_with_nothing(data, tmp_path):
    small_run(data, tmp_path / "store")
    text = written(tmp_path / "store", tmp_path / "page.html")
    assert "there is no pool to compare with another" in text
    assert "Effects of the pools" not in text


@pytest.mark.usefixtures("blank_pictures")
def test_a_baseline_that_is_not_there_or_may_be_several_is_said(store, data, tmp_path):
    text = written(store, tmp_path / "page.html", "--report", "page[baseline=main-similar]")
    assert "because the baseline main-similar is none of mix[" in text
    assert "page[baseline=...]" in text
    small_run(data, tmp_path / "store", pool=[POOL, "single[main=mlp[width=8]]"])
    text = written(tmp_path / "store", tmp_path / "page.html")
    assert f"because the baseline single is any of {POOL}, single[main=mlp[width=8]]" in text
    text = written(tmp_path / "store", tmp_path / "page.html", "--report", f"page[baseline={POOL}]")
    assert len(summary(text)) == 3


# --- in a browser -----------------------------------------------------------------------------------------------------

WIDTHS = [360, 390, 768, 1280, 1440]


@pytest.fixture(scope="module")
def browsed(text, tmp_path_factory):
    """By width, what a browser makes of the page; one browser shows it at all of them."""
    folder = tmp_path_factory.mktemp("browsed")
    page = folder / "page.html"
    page.write_text(text)
    measures, said, asked = browse_at(page, folder / "browser", WIDTHS)
    return dict(zip(WIDTHS, measures, strict=True)), said, asked


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it_whole_and_asks_for_nothing(browsed, text, width):
    by_width, said, asked = browsed
    measures = by_width[width]
    assert said == []
    assert measures["images"] == measures["decoded"] == len(Page(text).all("img")) > 10
    assert measures["scripts"] == 0
    assert measures["cut"] == [], "nothing is cut off or has to be scrolled sideways"
    assert measures["scroll"] <= measures["width"] == width
    assert measures["color"] == "rgb(29, 36, 48)"
    assert asked == set()


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")
def test_a_browser_would_say_what_is_wrong(text, tmp_path):
    """The test above sees a request, a script, a broken picture and a page that is too wide."""
    wrong = (
        '<img src="http://127.0.0.1:9/a.png" alt="a"><script>console.error("no")</script><p style="min-width:999px">a'
    )
    page = tmp_path / "page.html"
    page.write_text(text.replace("</h1>", f"</h1>{wrong}</p>").replace("Content-Security-Policy", "X"))
    measures, said, asked = browse(page, tmp_path / "browser", 390)
    assert any("no" in line for line in said)
    assert measures["decoded"] < measures["images"]
    assert (measures["scripts"], measures["width"]) == (1, 390)
    assert measures["scroll"] > 900
    assert any(line.startswith("P") for line in measures["cut"])
    assert asked == {"http://127.0.0.1:9/a.png"}
    page.write_text(text.replace("</h1>", f"</h1>{wrong}</p>"))
    measures, said, asked = browse(page, tmp_path / "again", 390)
    assert asked == set()
    assert len([line for line in said if "Content Security Policy" in line]) > 1
