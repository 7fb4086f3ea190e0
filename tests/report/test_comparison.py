"""What ``ddbench compare`` answers, against NumPy and SciPy on the records' numbers."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats
from studies import ddbench, small_run
from synthetic import ARCHITECTURES, artifact_record, set_record, student_record, study, write_store

import harness
from harness.report.comparing.question import in_natural_order
from harness.report.tables.wording import percent


def compare(*words, exit_code=0):
    result = ddbench("compare", *words, "--format", "json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout) if exit_code == 0 else result.stderr


def rows(answer, **wanted):
    return [row for row in answer["rows"] if all(row[key] == value for key, value in wanted.items())]


def row(answer, **wanted):
    (entry,) = rows(answer, **wanted)
    return entry


def arm(pool, accuracies, **fields):
    """Records of one pool: ``accuracies`` by distillation and student; None where there is no score."""
    student = {key: fields.pop(key) for key in ("collapsed", "device", "scored", "versions") if key in fields}
    of_set = {"versions": student["versions"]} if "versions" in student else {}
    for distillation, students in enumerate(accuracies):
        of = set_record(pool=pool, distillation=distillation, **of_set, **fields)
        yield of
        for index, accuracy in enumerate(students):
            if accuracy is not None:
                yield student_record(of, student=index, accuracy=accuracy, **student)


def values(records, **wanted):
    """Accuracies by distillation and student."""
    results = [record["result"] for record in records if record["kind"] == "student"]
    results = [result for result in results if all(result[key] == value for key, value in wanted.items())]
    table = np.full([1 + max(result[key] for result in results) for key in ("distillation", "student")], np.nan)
    for result in results:
        table[result["distillation"], result["student"]] = result["accuracy"]
    return table


def close(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


# --- designs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_several_distillations_are_the_units(tmp_path, level):
    records = list(study(architectures=("mlp",), distillations=4, students=3, gain=0.05))
    answer = compare(write_store(tmp_path, records), "--level", level)
    tables = [values(records, pool=pool) for pool in ("single", "main-similar")]
    differences = (tables[1] - tables[0]).mean(axis=1)
    test = stats.ttest_1samp(differences, 0)
    entry = row(answer, value="main-similar")
    assert (entry["difference"], entry["p"]) == (close(differences.mean()), close(test.pvalue))
    assert (entry["low"], entry["high"]) == close(tuple(test.confidence_interval(level)))
    assert entry["median_difference"] == close(np.median(differences))
    assert (entry["design"], entry["units"], entry["effect_doubts"]) == ("distillations", "4", "")
    assert entry["decided"] == (entry["p_holm"] < 1 - level)
    for table, pool in zip(tables, ("single", "main-similar"), strict=True):
        entry = row(answer, value=pool)
        assert (entry["mean"], entry["median"]) == (close(table.mean()), close(np.median(table)))
        assert entry["std_students"] == close(np.sqrt(table.var(axis=1, ddof=1).mean()))
        assert entry["std_distillations"] == close(table.mean(axis=1).std(ddof=1))
        assert (entry["distillations"], entry["students"], entry["scores"]) == (4, 3, 12)
    assert row(answer, value="single")["difference"] is None


def test_the_students_of_one_set_decide_nothing_about_others(tmp_path):
    records = [*arm("single", [[0.30, 0.31, 0.32, 0.30]]), *arm("main-similar", [[0.40, 0.42, 0.41, 0.43]])]
    entry = row(compare(write_store(tmp_path, records)), value="main-similar")
    test = stats.ttest_1samp([0.10, 0.11, 0.09, 0.13], 0)
    assert (entry["design"], entry["units"], entry["p"]) == ("students", "4", close(test.pvalue))
    assert entry["p"] < 0.01
    assert entry["decided"] is False
    assert "1 distillation in each arm" in entry["effect_doubts"]
    assert "the variance between sets is unknown" in entry["effect_doubts"]
    text = ddbench("compare", tmp_path, "--details").stdout
    assert "every effect: 1 distillation in each arm" in text
    assert "p=0.0011" in text
    assert "p=0.0011*" not in text


def test_one_student_is_not_testable(tmp_path):
    records = [*arm("single", [[0.3]]), *arm("main-similar", [[0.4]])]
    entry = row(compare(write_store(tmp_path, records)), value="main-similar")
    assert entry["difference"] == close(0.1)
    assert entry["low"] is entry["p"] is entry["p_holm"] is None
    assert "not testable" in entry["effect_doubts"]
    assert "+10.0 │" in ddbench("compare", tmp_path, "--details").stdout


def test_equal_scores_are_not_testable(tmp_path):
    records = [record for pool in ("single", "main-similar") for record in arm(pool, [[0.3, 0.2], [0.4, 0.5]])]
    entry = row(compare(write_store(tmp_path, records)), value="main-similar")
    assert (entry["difference"], entry["p"]) == (0, None)
    assert "all differences are zero: not testable" in entry["effect_doubts"]


def test_only_what_both_have_is_paired(tmp_path):
    single = [[0.30, 0.32, 0.31], [0.33, 0.35, None], [0.31, 0.30, 0.29], [0.9, 0.9, 0.9]]
    other = [[0.40, None, 0.41], [0.41, 0.44, 0.42], [0.40, 0.45, 0.41]]
    records = [*arm("single", single), *arm("main-similar", other)]
    answer = compare(write_store(tmp_path, records))
    entry = row(answer, value="main-similar")
    differences = [np.mean([0.10, 0.10]), np.mean([0.08, 0.09]), np.mean([0.09, 0.15, 0.12])]
    assert entry["difference"] == close(np.mean(differences))
    assert entry["p"] == close(stats.ttest_1samp(differences, 0).pvalue)
    assert (entry["units"], entry["left_out_baseline"], entry["left_out"]) == ("3", 4, 1)
    assert "unequal repeats: 4 scores of single and 1 of main-similar left out" in entry["effect_doubts"]
    assert "unequal repeats: 2 to 3 students" in row(answer, value="single")["arm_doubts"]
    text = ddbench("compare", tmp_path, "--details").stdout
    assert "n=4×3" in text
    assert "n=3×3" in text
    assert "left out of the pairs" in text


def test_without_common_distillations_it_is_welch(tmp_path):
    records = [*arm("single", [[0.30, 0.32], [0.35, 0.36], [0.2, 0.22]]),
               *arm("main-similar", [[0.40, 0.42], [0.45, 0.41]], seed=7)]  # fmt: skip
    entry = row(compare(write_store(tmp_path, records)), value="main-similar")
    test = stats.ttest_ind([0.41, 0.43], [0.31, 0.355, 0.21], equal_var=False)
    assert (entry["design"], entry["units"], entry["p"]) == ("unpaired", "3+2", close(test.pvalue))
    assert (entry["low"], entry["high"]) == close(tuple(test.confidence_interval()))
    assert "not paired" in entry["effect_doubts"]
    assert "Welch" in entry["effect_doubts"]
    assert (entry["left_out"], entry["left_out_baseline"]) == (0, 0)


def test_seeds_are_units_too(tmp_path):
    records = [record for seed in (0, 1) for pool, base in (("single", 0.3), ("main-similar", 0.35))
               for record in arm(pool, [[base, base + 0.01 * seed]], seed=seed)]  # fmt: skip
    entry = row(compare(write_store(tmp_path, records)), value="main-similar")
    assert (entry["design"], entry["units"], entry["difference"]) == ("distillations", "2", close(0.05))


@pytest.mark.usefixtures("toys")
def test_a_set_from_a_file_is_not_paired_with_ours(data, tmp_path):
    small_run(data, tmp_path / "store", evaluator="scripted", students=4, distillations=2)
    path = next((tmp_path / "store" / "cells").glob("??/*/set.safetensors"))
    options = {
        "dataset": f"arrays[path={data}]",
        "evaluator": "scripted",
        "architecture": "mlp[width=8]",
        "students": 4,
    }
    harness.evaluate(path, **options, store=tmp_path / "store")
    answer = compare(tmp_path / "store", "--by", "method", "--baseline", "dc[batch_real=4]")
    (label,) = {entry["value"] for entry in answer["rows"]} - {"dc[batch_real=4]"}
    assert label.startswith("dc[batch_real=4] (file ")
    assert any("stands for 2 different things, which are kept apart" in note for note in answer["notes"])
    entry = row(answer, value=label)
    assert (entry["design"], entry["p"], entry["distillations"]) == ("unpaired", None, 1)
    assert "one value in an arm, and none is paired: not testable" in entry["effect_doubts"]
    assert "what the file says of it is not checked" in entry["arm_doubts"]


@pytest.mark.usefixtures("toys")
def test_evaluators_of_one_file_are_paired(data, tmp_path):
    small_run(data, tmp_path / "other", method="still", students=1)
    path = next((tmp_path / "other" / "cells").glob("??/*/set.safetensors"))
    options = {"dataset": f"arrays[path={data}]", "architecture": "mlp[width=8]", "students": 3}
    harness.evaluate(path, evaluator=["scripted", "plain[epochs=1]"], **options, store=tmp_path / "store")
    entry = row(compare(tmp_path / "store", "--by", "evaluator", "--baseline", "plain"), value="scripted")
    assert (entry["design"], entry["units"]) == ("students", "3")


# --- what is doubtful -------------------------------------------------------------------------------------------------


def test_other_versions_are_kept_apart(tmp_path):
    records = [*arm("single", [[0.3, 0.31], [0.32, 0.3]]), *arm("main-similar", [[0.4, 0.41], [0.42, 0.4]])]
    again = arm("single", [[0.5, 0.51], [0.52, 0.5]], versions={"evaluator": 2})
    answer = compare(write_store(tmp_path, [*records, *(record for record in again if record["kind"] == "student")]))
    assert (
        "evaluator plain stands for 2 different things, which are kept apart: version 1, version 2" in answer["notes"]
    )
    assert row(answer, evaluator="plain (version 1)", value="single")["mean"] == close(0.3075)
    assert row(answer, evaluator="plain (version 2)", value="single")["mean"] == close(0.5075)
    assert row(answer, evaluator="plain (version 1)", value="main-similar")["difference"] == close(0.1)
    assert not rows(answer, evaluator="plain (version 2)", value="main-similar")


def test_teachers_of_other_versions_are_kept_apart(tmp_path):
    of = set_record()
    records = [of]
    for version in (1, 2):
        teacher = artifact_record(of, versions={"architecture": version})
        records += [teacher, *(student_record(of, evaluator="kd", student=index, artifact=teacher["key"], accuracy=0.3)
                               for index in (0, 1))]  # fmt: skip
    answer = compare(write_store(tmp_path, records))
    evaluators = {"kd (teacher version 1)", "kd (teacher version 2)"}
    assert {entry["evaluator"] for entry in answer["rows"]} == evaluators
    assert all((entry["scores"], entry["arm_doubts"]) == (2, "") for entry in answer["rows"])


def test_several_scores_of_one_student_are_flagged(tmp_path):
    of = set_record()
    records = [of, *(student_record(of, artifact=key, accuracy=0.3) for key in ("aa", "bb"))]
    entry = row(compare(write_store(tmp_path, records)), value="single")
    assert entry["scores"] == 1
    assert "1 student has several scores under the same names: one of each is taken" in entry["arm_doubts"]


def test_a_baseline_that_is_two_things_must_name_which(tmp_path):
    records = [record for version in (1, 2) for record in arm("single", [[0.3], [0.4]], versions={"pool": version})]
    write_store(tmp_path, records)
    assert "single (version 1), single (version 2)" in compare(tmp_path, exit_code=2)
    answer = compare(tmp_path, "--baseline", "single (version 2)")
    assert (answer["baseline"], answer["family"]) == ("single (version 2)", 0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"scored": "others"}, "dataset"), ({"problem": "q"}, "dataset"), ({"precision": "bf16"}, "precision"),
     ({"versions": {"method": 2}}, "method"), ({"versions": {"architecture": 2}}, "architecture"),
     ({"total": 5}, "method"), ({"versions": {"evaluator": 2}}, "evaluator")],
)  # fmt: skip
def test_what_differs_in_more_than_the_axis_is_never_paired(tmp_path, changes, field):
    records = [*arm("single", [[0.3, 0.31], [0.32, 0.3]]), *arm("main-similar", [[0.4], [0.42]], **changes)]
    answer = compare(write_store(tmp_path, {record["key"]: record for record in records}.values()))
    assert answer["family"] == 0
    assert all(entry["difference"] is None for entry in answer["rows"])
    assert len({entry[field] for entry in answer["rows"]}) == 2


def test_devices_that_differ_are_flagged(tmp_path):
    records = [
        *arm("single", [[0.3, 0.31], [0.32, 0.3]]),
        *arm("main-similar", [[0.4, 0.4], [0.42, 0.4]], device="H100"),
    ]
    answer = compare(write_store(tmp_path, records))
    assert "the arms were made on different devices: H100, cpu" in row(answer, value="main-similar")["effect_doubts"]
    assert "made on several devices: H100, cpu" in row(answer, value="main-similar")["arm_doubts"]
    assert row(answer, value="single")["arm_doubts"] == ""


@pytest.mark.parametrize(("status", "word"), [("diverged", "last set in range"), ("blown up", "8 times as large")])
def test_sets_that_went_wrong_are_flagged(tmp_path, status, word):
    records = [
        *arm("single", [[0.3, 0.31], [0.32, 0.3]]),
        *arm("main-similar", [[0.4, 0.4], [0.42, 0.4]], status=status),
    ]
    answer = compare(write_store(tmp_path, records))
    entry = row(answer, value="main-similar")
    assert entry["status"] == status
    assert f"2 of 2 sets {status}" in entry["arm_doubts"]
    assert word in entry["arm_doubts"]
    assert row(answer, value="single")["status"] == "done"
    assert f"(a) 2 of 2 sets {status}" in ddbench("compare", tmp_path, "--details").stdout


def test_collapsed_students_are_counted_and_the_median_stands_beside(tmp_path):
    records = [*arm("single", [[0.3, 0.3], [0.3, 0.3]]), *arm("main-similar", [[0.4, 0.4], [0.4, 0.4]])]
    of = set_record(pool="main-similar", distillation=2)
    records += [of, student_record(of, accuracy=0.1, collapsed=True)]
    entry = row(compare(write_store(tmp_path, records)), value="main-similar")
    assert (entry["collapsed"], entry["mean"], entry["median"]) == (1, close(0.34), close(0.4))
    text = ddbench("compare", tmp_path, "--details").stdout
    assert "34.0 (40.0)" in text
    assert "1 collapsed" in text
    assert "99 % of the images" in text


# --- families and summaries -------------------------------------------------------------------------------------------


def test_holm_is_over_every_effect_shown(tmp_path):
    records = list(study(pools=("single", "a", "b"), architectures=ARCHITECTURES[:3], gain=0.03, distillations=5))
    answer = compare(write_store(tmp_path, records))
    tested = sorted((entry["p"], entry["p_holm"]) for entry in answer["rows"] if entry["p"] is not None)
    assert len(tested) == answer["family"] == 2 * (3 + 3)
    least = 0
    for rank, (p, adjusted) in enumerate(tested):
        least = max(least, min(1, (len(tested) - rank) * p))
        assert adjusted == close(least)


def test_rows_that_sum_up_architectures(tmp_path):
    records = list(study(architectures=ARCHITECTURES[:3], distillations=3, students=2, gain=0.05))
    answer = compare(write_store(tmp_path, records))
    tables = {(pool, name): values(records, pool=pool, architecture=name)
              for pool, name in itertools.product(("single", "main-similar"), ARCHITECTURES[:3])}  # fmt: skip
    others = {pool: (tables[pool, "mlp"] + tables[pool, "lenet"]) / 2 for pool in ("single", "main-similar")}
    every = {pool: (tables[pool, "convnet"] + 2 * others[pool]) / 3 for pool in others}
    gap = {pool: tables[pool, "convnet"] - others[pool] for pool in others}
    for over, named, expected in (
        ("all", "all architectures", every),
        ("others", "all but convnet", others),
        ("gap", "convnet minus others", gap),
    ):
        entry = row(answer, over=over, value="main-similar")
        assert entry["architecture"] == named
        differences = (expected["main-similar"] - expected["single"]).mean(axis=1)
        assert entry["difference"] == close(differences.mean())
        assert entry["p"] == close(stats.ttest_1samp(differences, 0).pvalue)
        assert entry["mean"] == close(expected["main-similar"].mean())
        assert entry["std_distillations"] == close(expected["main-similar"].mean(axis=1).std(ddof=1))


def test_rows_that_there_are_not_are_refused_with_the_reason(tmp_path):
    store = write_store(tmp_path / "store", study(architectures=("convnet", "mlp")))
    result = ddbench("compare", store, "--over", "others")
    assert result.exit_code == 2
    assert "--over others: there is no such row; all, others and gap take two architectures or more" in result.stderr


def test_a_summary_is_over_the_architectures_that_both_have(tmp_path):
    records = list(study(architectures=ARCHITECTURES[:3]))
    remaining = [
        record
        for record in records
        if (record["result"]["pool"], record["result"].get("architecture")) != ("main-similar", "lenet")
    ]
    answer = compare(write_store(tmp_path, remaining))
    entry = row(answer, over="all", value="main-similar")
    both = [values(remaining, pool=pool, architecture=name)
            for pool, name in itertools.product(("single", "main-similar"), ("convnet", "mlp"))]  # fmt: skip
    assert entry["difference"] == close((both[2] + both[3] - both[0] - both[1]).mean() / 2)
    assert "over the 2 architectures that both have: convnet, mlp" in entry["effect_doubts"]
    assert not rows(answer, architecture="lenet", value="main-similar")


@pytest.mark.parametrize("over", ["all", "gap"])
def test_students_that_not_every_architecture_has_are_left_out_of_a_summary_aloud(tmp_path, over):
    records = list(study(architectures=ARCHITECTURES[:2], students=3))
    remaining = [record for record in records
                 if (record["result"].get("architecture"), record["result"].get("student")) != ("mlp", 2)]  # fmt: skip
    answer = compare(write_store(tmp_path, remaining))
    assert row(answer, over=over, value="single")["scores"] == 6
    assert (
        "3 scores of students that not every architecture has left out"
        in row(answer, over=over, value="single")["arm_doubts"]
    )
    assert row(answer, architecture="convnet", value="single")["arm_doubts"] == ""


@pytest.mark.parametrize("over", ["architecture", "all", "others", "gap"])
def test_fewer_rows_are_a_smaller_family(tmp_path, over):
    answer = compare(write_store(tmp_path, study(architectures=ARCHITECTURES[:3], distillations=4)), "--over", over)
    assert {entry["over"] for entry in answer["rows"]} == {over}
    assert answer["family"] == (3 if over == "architecture" else 1)
    if over != "architecture":
        entry = row(answer, value="main-similar")
        assert entry["p_holm"] == entry["p"]


def test_one_architecture_is_not_summed_up(tmp_path):
    answer = compare(write_store(tmp_path, study(architectures=("mlp",))))
    assert {entry["over"] for entry in answer["rows"]} == {"architecture"}


# --- axes -------------------------------------------------------------------------------------------------------------


def test_methods_without_a_pool_are_left_out_aloud(tmp_path):
    records = [*study(), *arm(None, [[0.2]], method="random")]
    answer = compare(write_store(tmp_path, records))
    assert "random has no pool: left out" in answer["notes"]
    assert {entry["method"] for entry in answer["rows"]} == {"dc"}


def test_a_method_without_a_pool_stands_beside_every_pool(tmp_path):
    records = list(study(architectures=("convnet",), iterations=(100, 200)))
    records += arm(None, [[0.2, 0.21], [0.22, 0.2], [0.2, 0.23]], method="random", iterations=None)
    answer = compare(write_store(tmp_path, records), "--by", "method", "--baseline", "random")
    entries = rows(answer, value="dc")
    assert {(entry["pool"], entry["iterations"]) for entry in entries} == set(
        itertools.product(("single", "main-similar"), (100, 200))
    )
    table = values(records, pool="single", iterations=200)
    assert row(answer, value="dc", pool="single", iterations=200)["difference"] == close(table.mean() - 0.21)
    only = compare(tmp_path, "--by", "method", "--baseline", "random", "--iterations", "100", "--pool", "single")
    assert len(rows(only, value="dc")) == len(rows(only, value="random")) == 1


@pytest.mark.parametrize(
    ("by", "baseline"), [("iterations", "100"), ("evaluator", "kd"), ("architecture", "mlp"), ("method", "dm")]
)
def test_every_axis_is_paired(tmp_path, by, baseline):
    records = list(study(methods=("dc", "dm"), iterations=(100, 1000), evaluators=("plain", "kd"), pools=("single",),
                         architectures=ARCHITECTURES[:3]))  # fmt: skip
    answer = compare(write_store(tmp_path, records), "--by", by, "--baseline", baseline)
    differing = [entry for entry in answer["rows"] if entry["difference"] is not None]
    assert differing
    assert {entry["design"] for entry in differing} == {"distillations"}
    assert {entry["baseline"] for entry in answer["rows"]} == {baseline}
    assert {str(entry[by]) for entry in differing} == {str(entry["value"]) for entry in differing}
    architectures = {entry["over"] for entry in answer["rows"]}
    assert architectures == ({"architecture"} if by == "architecture" else {"architecture", "all", "others", "gap"})


def test_numbers_count_up_and_the_smallest_is_the_baseline(tmp_path):
    answer = compare(write_store(tmp_path, study(iterations=(1000, 20, 100), pools=("single",))), "--by", "iterations")
    assert answer["baseline"] == "20"
    assert list(dict.fromkeys(entry["value"] for entry in answer["rows"])) == ["20", "100", "1000"]


def test_data_sets_are_not_paired(tmp_path):
    records = [*arm("single", [[0.3], [0.4]]), *arm("single", [[0.7], [0.9]], dataset="mnist", problem="m")]
    answer = compare(write_store(tmp_path, records), "--by", "dataset", "--baseline", "digits")
    entry = row(answer, value="mnist")
    assert (entry["design"], entry["difference"]) == ("unpaired", close(0.45))


def test_stores_are_compared(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    records = list(study(pools=("single",), architectures=("mlp",)))
    write_store(first, records)
    for record in records:
        if record["kind"] == "student":
            record["result"]["accuracy"] += (
                0.1 if record["result"]["student"] else 0.11 * (1 + record["result"]["distillation"])
            )
    write_store(second, records)
    answer = compare(first, second, "--by", "store")
    assert answer["baseline"] == str(first)
    entry = row(answer, value=str(second))
    assert (entry["design"], entry["units"]) == ("distillations", "3")
    assert entry["difference"] == close(np.mean([0.105, 0.16, 0.215]))
    assert compare(first, second, "--by", "store", "--baseline", second)["baseline"] == str(second)


def test_stores_that_differ_in_more_are_not_paired(tmp_path):
    write_store(tmp_path / "a", arm("single", [[0.3, 0.32], [0.31, 0.36]]))
    write_store(tmp_path / "b", arm("single", [[0.4, 0.42], [0.41, 0.43]], versions={"evaluator": 2}))
    entry = row(compare(tmp_path / "a", tmp_path / "b", "--by", "store"), value=str(tmp_path / "b"))
    assert entry["design"] == "unpaired"
    assert "other images or versions under the same names" in entry["effect_doubts"]


def test_cells_in_two_stores_count_once(tmp_path):
    records = list(study(architectures=("mlp",)))
    write_store(tmp_path / "a", records)
    alone = compare(tmp_path / "a")
    records[1]["result"]["accuracy"] += 0.2
    write_store(tmp_path / "b", records)
    answer = compare(tmp_path / "a", tmp_path / "b")
    assert answer["rows"] == alone["rows"]
    assert "12 scores are in several stores: the first store's are taken; 1 of them differ" in answer["notes"][0]


def test_distillations_in_two_stores_add_up(tmp_path):
    records = list(study(architectures=("mlp",), distillations=4))
    write_store(tmp_path / "whole", records)
    parts = [[record for record in records if record["result"]["distillation"] % 2 == half] for half in (0, 1)]
    stores = [write_store(tmp_path / f"part{half}", part) for half, part in enumerate(parts)]
    assert compare(*stores)["rows"] == compare(tmp_path / "whole")["rows"]


def test_test_and_validation_are_never_mixed(tmp_path):
    records = list(arm("single", [[0.3, 0.31]]))
    records += [student_record(records[0], student=5, accuracy=0.9, score_on="validation")]
    write_store(tmp_path, records)
    answer = compare(tmp_path)
    assert "1 score on validation is left out: --score-on validation" in answer["notes"]
    assert row(answer, value="single")["mean"] == close(0.305)
    assert row(compare(tmp_path, "--score-on", "validation"), value="single")["mean"] == 0.9


# --- bootstrap --------------------------------------------------------------------------------------------------------


def test_a_bootstrap_interval(tmp_path):
    write_store(tmp_path, study(architectures=("mlp",), distillations=12, gain=0.05))
    t, (first, again), other = (
        compare(tmp_path),
        [compare(tmp_path, "--interval", "bootstrap") for _ in range(2)],
        compare(tmp_path, "--interval", "bootstrap", "--seed", 1),
    )
    assert first == again
    lows = [row(answer, value="main-similar")["low"] for answer in (t, first, other)]
    assert len(set(lows)) == 3
    assert lows[1:] == pytest.approx([lows[0]] * 2, abs=0.02)
    assert "BCa bootstrap" in ddbench("compare", tmp_path, "--details", "--interval", "bootstrap").stdout


def test_too_few_units_for_a_bootstrap_are_reported(tmp_path):
    write_store(tmp_path, study(architectures=("mlp",), distillations=3))
    entry = row(compare(tmp_path, "--interval", "bootstrap"), value="main-similar")
    assert "t interval: too few units for a bootstrap" in entry["effect_doubts"]
    assert entry["low"] == row(compare(tmp_path), value="main-similar")["low"]


# --- published numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("iterations", "departs"), [(1000, ""), (300, "1000 iterations")])
def test_published_numbers_stand_beside_and_say_what_departs(tmp_path, iterations, departs):
    known = {"like": "cifar10", "preprocessing": "cifar10"}
    for pool in ("single", "total-random"):
        of = set_record(pool=pool, iterations=iterations)
        students = [
            student_record(of, architecture="mlp", student=index, accuracy=0.2 + index / 100, **known)
            for index in (0, 1)
        ]
        write_store(tmp_path, [of, *students])
    entry = row(compare(tmp_path), value="total-random")
    assert (entry["published"], entry["published_departures"]) == (close(0.1029), departs)
    assert "table 5" in entry["published_source"]
    text = ddbench("compare", tmp_path, "--details").stdout
    assert "published total-random" in text
    assert "10.3" in text
    assert "published: Zhou, Zhong, Chen (model pool), table 5" in text
    assert ("published otherwise: 1000 iterations" in text) == bool(departs)


def test_records_that_do_not_tell_have_no_published_number(tmp_path):
    answer = compare(write_store(tmp_path, study()))
    assert all(entry["published"] is None for entry in answer["rows"])
    assert "published" not in ddbench("compare", tmp_path).stdout


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "+0.0"), (-0.0004, "−0.0"), (0.0004, "+0.0"), (-0.0006, "−0.1"), (0.25, "+25.0")]
)
def test_a_difference_that_rounds_to_zero_keeps_its_sign(value, text):
    """Else an interval from a little below zero would seem to exclude it."""
    assert percent(value, signed=True) == text
    assert percent(-0.0004) == "0.0"


def test_values_are_sorted_as_people_count():
    assert in_natural_order(["x10", "x2", "x²", "2", "10", "²"]) == ["2", "10", "x2", "x10", "x²", "²"]
