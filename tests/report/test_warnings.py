"""``compare`` and ``report`` warn of what they put side by side if it differs in more or if different code made it."""

import json
import re

import pytest
from studies import ddbench
from synthetic import artifact_record, set_record, student_record, write_store

pytestmark = pytest.mark.usefixtures("blank_pictures")

MARK = "WARNING: "
OLD = {"harness.learning": "0" * 64}
ALL_CODE = [f"harness.{name}" for name in ("learning", "a.A", "b.B", "c.C", "d.D")]
"""As records of an earlier version of the code name it."""


def warnings(store, *words):
    done = ddbench("compare", *([store] if not isinstance(store, list) else store), *words, "--format", "json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["warnings"]


def arm(*, students=2, student=None, **of_set):
    """A set with its students."""
    of = set_record(**of_set)
    return [of, *(student_record(of, student=index, accuracy=0.3 + index / 100, **(student or {}))
                  for index in range(students))]  # fmt: skip


def side_by_side(tmp_path, *arms):
    """A store with one arm for each mapping of what it is made of."""
    return write_store(
        tmp_path / "store", {record["key"]: record for fields in arms for record in arm(**fields)}.values()
    )


# --- arms that differ in more than the axis ---------------------------------------------------------------------------

BY_METHOD = ("--by", "method", "--baseline", "dc")
BY_EVALUATOR = ("--by", "evaluator", "--baseline", "plain")
WIDE = {"main": "convnet[width=16]"}
MUST_WARN = [
    ((), ({}, {"pool": "main-similar", **WIDE}), ("main model", "convnet in single", "convnet[width=16] in main-")),
    (
        ("--baseline", "main-similar[warmup=1]"),
        ({"pool": "main-similar[warmup=1]"},
         {"pool": "main-similar[warmup=2]", **WIDE, "set_options": ["convnet.width=16"]}),
        ("main model", "convnet[width=16] in main-similar[warmup=2]"),
    ),
    (
        ("--baseline", "single (version 1)"),
        ({}, {"versions": {"pool": 2}, **WIDE}),
        ("main model", "convnet in single (version 1)", "convnet[width=16] in single (version 2)"),
    ),
    (
        BY_METHOD,
        ({}, {"method": "whole", "pool": None, "ipc": None, "iterations": None, "storage_floats": 10**6}),
        ("storage", "2,560 numbers in dc", "1,000,000 numbers in whole"),
    ),
    (
        BY_METHOD,
        ({"options": {"batch_real": 64}}, {"method": "dm", "options": {"batch_real": 256}}),
        ("real images of each class a step", "64 in dc", "256 in dm"),
    ),
    (
        BY_METHOD,
        ({"options": {"outer": None}}, {"method": "dsa", "options": {"outer": 1}}),
        ("updates in an iteration", "auto in dc", "1 in dsa"),
    ),
    (
        BY_EVALUATOR,
        ({}, {"student": {"evaluator": "kd", "epochs": 1000}}),
        ("epochs of students", "300 in plain", "1000 in kd"),
    ),
    (
        BY_EVALUATOR,
        ({"student": {"options": {"protocol": "v1"}}},
         {"student": {"evaluator": "kd", "options": {"protocol": "dsa"}}}),
        ("protocol of students", "v1 in plain", "dsa in kd"),
    ),
]  # fmt: skip
MUST_NOT = [
    (
        (),
        ({}, {"pool": "main-similar"}, {"pool": "total-random", "main": None}, {"pool": "mix[of=mlp:1]", "main": None}),
    ),
    (("--baseline", "single"), ({}, {"pool": "single[main=mlp]", "main": "mlp"})),
    (
        ("--baseline", "main-similar"),
        ({"pool": "main-similar"},
         {"pool": "main-similar[main=mlp:0.8]", "main": "mlp", "set_options": ["mtt.experts=5"]}),
    ),
    (
        ("--by", "method", "--baseline", "dc[batch_real=4]"),
        ({"method": "dc[batch_real=4]", "options": {"batch_real": 4}},
         {"method": "dc[batch_real=8]", "options": {"batch_real": 8}}),
    ),
    (("--by", "method", "--baseline", "dc[lr_img=0.1]"), ({"method": "dc[lr_img=0.1]"}, {"method": "dc[lr_img=1]"})),
    (BY_METHOD, ({}, {"method": "random", "pool": None, "iterations": None})),
    (BY_METHOD, ({"options": {"batch_real": 64}}, {"method": "mtt", "options": {"batch_expert": 256}})),
    (("--by", "ipc"), ({}, {"ipc": 10, "storage_floats": 25600})),
    (("--by", "iterations"), ({}, {"iterations": 3000})),
    (("--by", "dataset", "--baseline", "digits"), ({}, {"dataset": "mnist", "problem": "m", "storage_floats": 7840})),
    (("--by", "architecture", "--baseline", "convnet"), ({}, {"student": {"architecture": "mlp", "epochs": 1000}})),
    (
        ("--by", "evaluator", "--baseline", "plain[epochs=10]"),
        ({"student": {"evaluator": "plain[epochs=10]", "epochs": 10}},
         {"student": {"evaluator": "plain[epochs=20]", "epochs": 20}}),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "arms", "parts"), MUST_WARN, ids=str)
def test_pairs_that_differ_in_more_are_named_in_one_line(tmp_path, words, arms, parts):
    (line,) = warnings(side_by_side(tmp_path, *arms), *words)
    assert line.startswith(MARK)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(("words", "arms"), MUST_NOT, ids=str)
def test_pairs_that_differ_in_what_is_compared_are_not(tmp_path, words, arms):
    assert warnings(side_by_side(tmp_path, *arms), *words) == []


@pytest.mark.parametrize(("change", "part"), [(WIDE, "main model"), ({"problem": "q"}, "training images: #p in"),
                                              ({"storage_floats": 5120}, "storage: 2,560 numbers")])  # fmt: skip
def test_stores_that_differ_in_more(tmp_path, change, part):
    stores = [write_store(tmp_path / name, arm(**fields)) for name, fields in (("a", {}), ("b", change))]
    (line,) = warnings(stores, "--by", "store")
    assert part in line
    assert f"in {tmp_path / 'a'}" in line
    assert warnings([stores[0], write_store(tmp_path / "c", arm())], "--by", "store") == []


def test_it_stands_beneath_the_table_in_every_format(tmp_path):
    store = side_by_side(tmp_path, {}, {"pool": "main-similar", **WIDE})
    for form in ("terminal", "markdown", "latex"):
        assert ddbench("compare", store, "--format", form).stdout.count("WARNING: arms differ in more") == 1
    done = ddbench("compare", store, "--format", "csv")
    assert done.stderr.count("WARNING: arms differ in more") == 1
    assert "WARNING" not in done.stdout


def page_warnings(store, tmp_path):
    file = tmp_path / "page.html"
    done = ddbench("report", store, "--output", file)
    assert done.exit_code == 0, done.output
    return [line for line in file.read_text().splitlines() if line.startswith('<p class="warning"')]


def test_a_page_names_what_its_rows_differ_in(tmp_path):
    lost = {"method": "dm", "iterations": 3000}
    (line,) = page_warnings(side_by_side(tmp_path, {}, {"pool": "main-similar", **WIDE}, lost), tmp_path)
    assert "main model: convnet in single, but convnet[width=16] in main-similar" in line
    assert "number of updates: 1,000 in dc · single, dc · main-similar, but 3,000 in dm · single" in line


def test_a_page_of_like_things_does_not_warn(tmp_path):
    pools = ({"pool": pool} for pool in ("single", "main-similar"))
    store = side_by_side(tmp_path, *pools, {"pool": "total-random", "main": None}, {"iterations": 500})
    assert page_warnings(store, tmp_path) == []


# --- numbers that different versions of the code made -----------------------------------------------------------------


def mixed(tmp_path, *, of_set=None, current=2, other=3, **student):
    """A cell of ``current`` students of the code of today and ``other`` of another, beside the baseline's."""
    of = set_record(pool="main-similar", **(of_set or {}))
    students = [student_record(of, student=index, accuracy=0.4, **(student if index >= current else {}))
                for index in range(current + other)]  # fmt: skip
    return write_store(tmp_path / "store", [*arm(), of, *students])


def test_students_of_different_code_in_one_cell_are_marked_and_named(tmp_path):
    store = mixed(tmp_path, code_digests=OLD)
    answer = json.loads(ddbench("compare", store, "--format", "json").stdout)
    (line,) = answer["warnings"]
    for part in ("2 and 3 students in main-similar, convnet", "harness.learning (students)", "--rerun-stale"):
        assert part in line
    versions = {row["value"]: row["code_versions"] for row in answer["rows"]}
    assert versions == {"single": 1, "main-similar": 2}
    doubts = {row["value"]: row["arm_doubts"] for row in answer["rows"]}
    assert "its students, sets or teachers were made by different versions of the code" in doubts["main-similar"]
    assert doubts["single"] == ""
    text = ddbench("compare", store, "--details").stdout
    assert re.search(r"40\.0 \(40\.0\) ±0\.0 ±– n=1×5 \(≠\)", text)
    assert "(≠) its students, sets or teachers were made by different versions of the code" in text
    assert line in text
    (warning,) = page_warnings(store, tmp_path)
    assert "2 and 3 students in dc · main-similar, convnet" in warning
    page = (tmp_path / "page.html").read_text()
    assert "±0.0 ≠" in page
    assert "≠ its students, sets or teachers were made by different versions of the code" in page


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [({"code_digests": OLD}, {}, "harness.learning (sets)"),
     ({"student": {"code_digests": {"harness.b.B": "1" * 64}}}, {}, "harness.b.B (students)"),
     ({"student": {"code_digests": dict.fromkeys(ALL_CODE, "1" * 64)}}, {},
      "harness.a.A (students), harness.b.B (students), harness.c.C (students) and 2 more")],
)  # fmt: skip
def test_distillations_of_one_arm_and_arms_of_different_code_are_named(tmp_path, first, second, part):
    between = side_by_side(tmp_path / "arms", first, {"pool": "main-similar", **second})
    (line,) = warnings(between)
    assert "what stands side by side was made by different versions of the code" in line
    assert part in line
    rows = json.loads(ddbench("compare", between, "--format", "json").stdout)["rows"]
    doubts = [row["effect_doubts"] or "" for row in rows]
    assert ["the arms were made by different versions of the code" in doubt for doubt in doubts] == [False, True]
    assert {row["code_versions"] for row in rows} == {1}
    within = side_by_side(tmp_path / "sets", first, {"distillation": 1, **second})
    (line,) = warnings(within)
    assert "2 and 2 students in single, convnet" in line
    assert part in line


def test_teachers_of_different_code_are_named(tmp_path):
    of = set_record()
    teachers = [artifact_record(of), artifact_record({**of, "key": "other"}, code_digests=OLD)]
    students = [student_record(of, evaluator="kd", student=index, artifact=teacher["key"])
                for index, teacher in enumerate(teachers)]  # fmt: skip
    (line,) = warnings(write_store(tmp_path, [of, *teachers, *students]))
    assert "harness.learning (teachers)" in line


def test_students_of_a_set_that_was_made_again_are_named(tmp_path):
    of = set_record()
    students = [student_record(of, student=index, set_file=str(index // 2) * 64) for index in range(4)]
    (line,) = warnings(write_store(tmp_path, [of, *students]))
    assert "2 and 2 students in single, convnet" in line
    assert f"set {of['key'][:12]}, which was made again" in line


def test_code_that_is_not_known_counts_as_the_same(tmp_path):
    store = mixed(tmp_path)
    for path in (store / "cells").glob("??/*/record.json"):
        record = json.loads(path.read_text())
        if record["result"].get("student") in (0, 1):
            record["provenance"].pop("code_digests")
            write_again(path, record)
    assert warnings(store) == []
    assert page_warnings(store, tmp_path) == []


def of_the_first_version(store, students, digest):
    """Give the records of these students, as the first versions did, digests of the bytes of the code alone."""
    for path in (store / "cells").glob("??/*/record.json"):
        record = json.loads(path.read_text())
        if record["result"].get("student") in students:
            del record["provenance"]["code_digests"]
            record["provenance"]["sources"] = {"harness.learning": digest}
            write_again(path, record)


def test_records_of_the_first_versions_are_compared_among_themselves(tmp_path):
    store = mixed(tmp_path)
    of_the_first_version(store, range(5), "1" * 64)
    assert warnings(store) == []
    of_the_first_version(mixed(tmp_path / "two"), (0, 1), "1" * 64)
    assert warnings(tmp_path / "two" / "store") == []  # the others hold digests of another kind
    for path in (store / "cells").glob("??/*/record.json"):
        record = json.loads(path.read_text())
        if record["result"].get("student") in (0, 1):
            record["provenance"]["sources"] = {"harness.learning": "2" * 64}
            write_again(path, record)
    (line,) = warnings(store)
    assert "2 and 3 students in main-similar, convnet" in line
    assert "they differ in harness.learning (students);" in line


def write_again(path, record):
    import hashlib

    from harness.store.cells import canonical_json

    record.pop("checksum", None)
    record["checksum"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    path.write_text(json.dumps(record))


def robust(tmp_path, **learned):
    """What the robust scores of a store say whose random images were scored by old code."""
    score = {"student": {"evaluator": "plain[protocol=v1]"}}
    old = {"student": {**score["student"], "code_digests": OLD}}
    real = {"pool": None, "iterations": None}
    whole = {"method": "whole", "ipc": None, **real, **score}
    store = side_by_side(tmp_path, {**learned, **score}, {"method": "random", **real, **old}, whole)
    return ddbench("report", store, "--report", "robust-scores", "--output", "-")


def test_robust_scores_of_different_code_are_named(tmp_path):
    done = robust(tmp_path, pool=None)
    assert done.exit_code == 0, done.output
    assert "what stands side by side was made by different versions of the code" in done.stdout


def test_a_report_that_misses_the_file_of_a_set_names_it(tmp_path):
    done = robust(tmp_path)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "report robust-scores of ddbench: " in line
    assert "set.safetensors is missing or was altered" in line


# --- values that no record should hold --------------------------------------------------------------------------------

ACCURACIES = [None, "0.9", -0.5, 7.0, 1.0000001, True, 10**400, [0.5], {"mean": 0.5}]
IMPOSSIBLE = [("accuracy", value) for value in ACCURACIES] + [
    ("collapsed", "no"), ("collapsed", None), ("loss", "low"), ("losses", "falling"), ("losses", [0.5, "x"]),
    ("seconds", -1), ("seconds", None), ("peak_memory", 0.5), ("peak_memory", 10**30), ("student", "0"),
    ("student", True), ("epochs", "all"), ("seed", None), ("pool", 3), ("like", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE, ids=str)
def test_a_student_with_an_impossible_value_is_left_out_and_named(tmp_path, name, value):
    of = set_record()
    bad = student_record(of, student=9)
    bad["result"][name] = value
    store = write_store(tmp_path, [of, bad, *arm()[1:]])
    answer = json.loads(ddbench("compare", store, "--format", "json").stdout)
    assert [row["scores"] for row in answer["rows"]] == [2]
    named, counted = answer["notes"]
    for part in (bad["key"][:12], "results discard"):
        assert part in named
    # No reader of JSON takes a number of 401 digits, wherever it stands.
    assert re.search(rf"{name}(\.\d+)? is |a whole number of 401 digits", named)
    assert counted == f"in all 1 record of {store} left out"


@pytest.mark.parametrize("value", ["x", None, {"loss": ["x"]}, {"loss": [[1]]}, {"loss": 3}], ids=str)
def test_a_page_bears_a_history_of_impossible_values(tmp_path, value):
    of = set_record()
    of["history"]["scalars"] = value
    store = write_store(tmp_path / "store", [of, *arm()[1:], *arm(pool="main-similar")])
    assert page_warnings(store, tmp_path) == []
    notes = (tmp_path / "page.html").read_text().partition('id="notes"')[2]
    for part in (of["key"][:12], "scalars", "left out"):
        assert part in notes


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", None), ("status", []), ("seconds", "long"), ("draws", {"a": "x"}), ("storage_floats", -1), ("main", 3)],
    ids=str,
)
def test_students_of_a_set_with_an_impossible_value_are_left_out(tmp_path, name, value):
    of = set_record()
    of["result"][name] = value
    students = arm()[1:]
    store = write_store(tmp_path, [of, *students, *arm(pool="main-similar")])
    answer = json.loads(ddbench("compare", store, "--baseline", "main-similar", "--format", "json").stdout)
    assert [(row["value"], row["scores"]) for row in answer["rows"]] == [("main-similar", 2)]
    assert of["key"][:12] in answer["notes"][0]
    assert name in answer["notes"][0]
    assert answer["notes"][-1] == f"in all 3 records of {store} left out"


# --- at equal storage -------------------------------------------------------------------------------------------------

PACKED, SMALL = "dc[as=multi-formation]", "dc[as=downsample]"
BY_PLAIN = ("--by", "method", "--baseline", "dc")


def test_a_parametrisation_of_the_same_method_is_warned_of_if_it_stores_less(tmp_path):
    store = side_by_side(tmp_path, {}, {"method": PACKED}, {"method": SMALL, "storage_floats": 640})
    (line,) = warnings(store, *BY_PLAIN)
    assert f"storage: 2,560 numbers in {PACKED}, dc, but 640 numbers in {SMALL}" in line
    assert "--equal-storage" in line


def test_only_arms_of_equal_storage_are_compared(tmp_path):
    store = side_by_side(tmp_path, {}, {"method": PACKED}, {"method": SMALL, "storage_floats": 640})
    done = ddbench("compare", store, *BY_PLAIN, "--equal-storage", "--format", "json")
    content = json.loads(done.stdout)
    assert {row["value"] for row in content["rows"]} == {"dc", PACKED}
    assert content["warnings"] == []
    assert f"left out by --equal-storage: {SMALL} (640 numbers, not 2,560 numbers)" in content["notes"]


def test_storage_is_compared_with_the_baseline_of_the_same_condition(tmp_path):
    larger = {"ipc": 10, "storage_floats": 25600}
    store = side_by_side(
        tmp_path, {}, larger, {"method": SMALL, "storage_floats": 25600}, {**larger, "method": SMALL},
        {"ipc": 50, "method": SMALL, "storage_floats": 128000},
    )  # fmt: skip
    done = ddbench("compare", store, *BY_PLAIN, "--equal-storage", "--format", "json")
    content = json.loads(done.stdout)
    assert {(row["ipc"], row["value"]) for row in content["rows"]} == {(1, "dc"), (10, "dc"), (10, SMALL)}
    assert any("25,600 numbers, not 2,560 numbers" in note for note in content["notes"])
