"""The same numbers, however a study is cut up, and nothing done twice."""

import pytest
import torch
from safetensors.torch import load_file
from studies import EVALUATOR, KD, METHOD, POOL, SMALL, Heard, numbers, records, small_run

import harness
from harness.compute.compiling import compilation

BOTH = {"evaluator": [EVALUATOR, KD], "architecture": ["mlp[width=8]", "convnet[width=4,depth=1]"]}


@pytest.fixture(scope="module")
def three(data, tmp_path_factory):
    """The numbers of a store with three students of each arm, made at once."""
    store = tmp_path_factory.mktemp("three")
    small_run(data, store, students=3, **BOTH)
    return numbers(store)


def images(store, key):
    (folder,) = (store / "cells").glob(f"??/{key}-1")
    return load_file(folder / "set.safetensors")["images"]


def set_keys(result):
    return [cell["key"] for cell in result.cells if cell["kind"] == "distilled"]


def test_the_same_study_makes_nothing_the_second_time(data, tmp_path):
    first, second = Heard(), Heard()
    result = small_run(data, tmp_path, reporter=first, **BOTH)
    again = small_run(data, tmp_path, reporter=second, **BOTH)
    cells = 1 + 2 + 4 * 2  # a set, a teacher a student, students of four arms
    assert first.plans == [(cells, 0)]
    assert len(first.done) == len(first.begun) == cells
    assert second.plans == [(0, cells)]
    assert second.begun == second.done == second.steps == []
    assert result.as_json() == again.as_json()


def test_two_students_and_then_another_are_three_at_once(data, tmp_path, three):
    small_run(data, tmp_path, students=2, **BOTH)
    two = numbers(tmp_path)
    small_run(data, tmp_path, students=3, **BOTH)
    assert numbers(tmp_path) == three
    assert {key: three[key] for key in two} == two
    kinds = [number["kind"] for number in three.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"distilled": 1, "artifact": 3, "student": 12}


def test_order_and_neighbours_change_no_number(data, tmp_path, three):
    other = {name: list(reversed(names)) for name, names in BOTH.items()}
    other["method"] = "dc[distance=layerwise,batch_real=4]"
    small_run(data, tmp_path, pool=["single[main=mlp[width=8]]", POOL], students=3, **other)
    beside = numbers(tmp_path)
    assert len(beside) > len(three)
    assert {key: beside[key] for key in three} == three


def test_the_order_of_options_within_a_pools_networks_changes_no_number(data, tmp_path):
    result = small_run(data, tmp_path, students=1, pool=[POOL, "single[main=convnet[depth=2,width=4]]"])
    first, other = (images(tmp_path, key) for key in (set_keys(result)[0], set_keys(result)[-1]))
    assert torch.equal(first, other)


def test_another_temperature_keeps_the_teachers(data, tmp_path):
    small_run(data, tmp_path, evaluator=KD)
    heard = Heard()
    small_run(data, tmp_path, evaluator=KD.replace("epochs=2", "epochs=2,temperature=4"), reporter=heard)
    assert [cell.kind for cell in heard.done] == ["student"] * 2  # the set and the teachers were there


def test_four_iterations_after_two_are_four_at_once(data, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    small_run(data, once, iterations=[2, 4])
    small_run(data, twice, iterations=2)
    heard = Heard()
    result = small_run(data, twice, iterations=[2, 4], reporter=heard)
    assert heard.steps == [3, 4]
    assert numbers(twice) == numbers(once)
    two, four = (images(twice, key) for key in set_keys(result))
    assert not torch.equal(two, four)


def test_a_point_asked_for_later_is_the_same(data, tmp_path):
    once, later = tmp_path / "once", tmp_path / "later"
    small_run(data, once, iterations=[1, 3, 4])
    small_run(data, later, iterations=4)
    heard = Heard()
    small_run(data, later, iterations=[1, 3, 4], reporter=heard)
    assert heard.steps == [1, 2, 3]
    assert numbers(later) == numbers(once)


def test_no_iteration_gives_the_initial_images(data, tmp_path):
    result = small_run(data, tmp_path, iterations=[0, 1])
    start, after = (images(tmp_path, key) for key in set_keys(result))
    assert not torch.equal(start, after)
    drawn = torch.randn(3, 1, 16, 16, generator=harness.Streams(0).generator("init", 0))
    assert torch.equal(start, drawn)
    assert [row["iterations"] for row in result.rows] == [0, 1]


def test_initial_images_do_not_depend_on_the_pool(data, tmp_path):
    result = small_run(data, tmp_path, iterations=0, pool=[POOL, "single[main=mlp[width=8]]"])
    sets = [images(tmp_path, key) for key in set_keys(result)]
    assert all(torch.equal(sets[0], other) for other in sets)


def test_more_distillations_add_to_those_there(data, tmp_path):
    small_run(data, tmp_path)
    before, heard = numbers(tmp_path), Heard()
    result = small_run(data, tmp_path, distillations=3, reporter=heard)
    three = numbers(tmp_path)
    assert {key: three[key] for key in before} == before
    assert len(heard.done) == 2 * 3
    sets = [images(tmp_path, key) for key in set_keys(result)]
    assert not any(torch.equal(sets[0], other) for other in sets[1:])
    assert result.rows[0]["distillations"] == 3


def test_other_seeds_are_other_cells(data, tmp_path):
    small_run(data, tmp_path)
    first = set(numbers(tmp_path))
    small_run(data, tmp_path, seed=1)
    assert len(numbers(tmp_path)) == 2 * len(first)


def test_records_say_where_they_come_from(data, tmp_path):
    small_run(data, tmp_path, evaluator=KD)
    for record in records(tmp_path).values():
        provenance = record["provenance"]
        assert set(provenance["versions"]) >= {"python", "torch", "ddbench", "numpy"}
        assert set(provenance["compute"]) == {"device", "threads", "torch_version", "machine", "compilation"}
        assert provenance["components"]
        assert provenance["code_digests"]
        assert all(len(part["code_digest"]) == 64 for part in provenance["components"])
    kinds = {record["kind"]: record for record in records(tmp_path).values()}
    result = kinds["student"]["result"]
    assert {"accuracy", "loss", "epochs", "seconds", "peak_memory", "collapsed", "student"} <= set(result)
    assert set(kinds["distilled"]["files"]) == {"set.safetensors", "images.png", "state.safetensors"}
    assert {"status", "largest", "std", "seconds"} <= set(kinds["distilled"]["result"])
    assert kinds["distilled"]["result"]["method"] == METHOD


def test_the_digits_are_there_without_a_file(tmp_path):
    result = harness.run(**SMALL, store=tmp_path)
    assert result.rows[0]["dataset"] == "digits"
    assert result.rows[0]["protocol"].startswith("plain quick v1")
    assert not result.failed


def test_whether_networks_are_compiled_is_recorded_and_no_part_of_a_key(data, tmp_path):
    small_run(data, tmp_path / "auto")
    small_run(data, tmp_path / "never", compile="never")
    auto, never = (records(tmp_path / name) for name in ("auto", "never"))
    assert set(auto) == set(never)
    for run_records, mode in ((auto, "auto"), (never, "never")):
        assert {record["provenance"]["compute"]["compilation"] for record in run_records.values()} == {mode}
    with pytest.raises(harness.UsageError, match="compile = 'maybe'"):
        small_run(data, tmp_path, compile="maybe")


def test_a_run_leaves_the_process_as_it_was(data, tmp_path):
    small_run(data, tmp_path)
    assert torch.tensor(1e-40) * 0.5 > 0, "small numbers count"
    assert compilation() == "never"
