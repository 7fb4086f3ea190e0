"""`ddbench results pack` and `unpack`, and a packed file wherever a store is read."""

import json
import shutil
from pathlib import Path

import pytest
from studies import ddbench, numbers
from test_run import assert_refused

from harness.cli.checkup import disks

pytestmark = pytest.mark.usefixtures("blank_pictures")

OLD = Path(__file__).parent.parent / "data" / "store-v1"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A store's folder, and the same store packed."""
    here = tmp_path_factory.mktemp("packed")
    folder = shutil.copytree(OLD, here / "store")
    shutil.rmtree(folder / "locks")
    done("results", "pack", folder, here / "store.tar.xz")
    return folder, here / "store.tar.xz"


def done(*words):
    result = ddbench(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    "words",
    [
        "results list --store {}",
        "results list --json --store {}",
        "results show 8b --store {}",
        "results show 8b --json --store {}",
        "results verify --store {}",
        "compare {} --by evaluator --baseline plain",
        "compare {} --by evaluator --baseline plain --format json",
        "compare {} --by evaluator --baseline plain --format csv",
        "report {} -o -",
    ],
)
def test_a_packed_store_reads_like_its_folder(places, words):
    texts = [done(*words.format(place).split()).replace(str(place), "STORE") for place in places]
    assert texts[0] == texts[1] != ""


def test_a_set_is_converted_out_of_a_packed_store(places, tmp_path):
    for name, place in zip("ab", places, strict=True):
        done("convert", "8b", tmp_path / f"{name}.safetensors", "--store", place)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_packed_store_and_another_are_compared(places, tmp_path):
    table = done("compare", *places, "--by", "store", "--format", "json")
    assert json.loads(table)["stores"] == list(map(str, places))


def test_what_was_packed_is_unpacked_and_said(places, tmp_path):
    folder, packed = places
    assert done("results", "unpack", packed, tmp_path / "new") == f"{tmp_path / 'new'}: 14 files\n"
    assert numbers(tmp_path / "new") == numbers(folder)
    assert done("results", "pack", tmp_path / "new", tmp_path / "x").startswith(f"{tmp_path / 'x'}: 5 cells, ")
    assert (tmp_path / "x").read_bytes() == packed.read_bytes()


def test_artifacts_that_were_left_out_are_made_only_for_new_students(tmp_path):
    """The same run finds nothing to do, and more students get the teachers that they need."""
    evaluator = "kd[epochs=1,protocol=quick,teacher=mlp[width=8]]"
    run = ("run", "-m", "random", "-p", "single[main=convnet[width=4,depth=1]]", "-e", evaluator, "-a", "mlp[width=8]",
           "--students")  # fmt: skip
    done(*run, 1, "--store", tmp_path / "whole")
    done("results", "pack", tmp_path / "whole", tmp_path / "light.tar.xz", "--without-artifacts")
    done("results", "unpack", tmp_path / "light.tar.xz", tmp_path / "light")
    again = ddbench(*run, 1, "--store", tmp_path / "light")
    assert again.exit_code == 0
    assert "0 cells to make, 2 in the store" in again.stderr
    assert "2 done, 1 unneeded" in done("status", "--store", tmp_path / "light")
    done(*run, 2, "--store", tmp_path / "light")
    done(*run, 2, "--store", tmp_path / "whole")
    assert numbers(tmp_path / "light").items() <= numbers(tmp_path / "whole").items()


def test_a_packed_file_is_replaced_only_by_force(places, tmp_path):
    folder, packed = places
    target = shutil.copy(packed, tmp_path / "there.tar.xz")
    refused = ddbench("results", "pack", folder, target, "--without-sets")
    assert_refused(refused, "is there already", "--force")
    done("results", "pack", folder, target, "--without-sets", "--force")
    assert target.stat().st_size < packed.stat().st_size


def test_without_sets_all_but_the_sets_is_there(places, tmp_path):
    _, packed = places
    light = tmp_path / "light.tar.xz"
    assert "5 cells, without 5 files" in done("results", "pack", packed, light, "--without-sets")
    done("results", "unpack", light, tmp_path / "light")
    for place in (light, tmp_path / "light"):
        verified = done("results", "verify", "--store", place)
        assert "0 things wrong, 0 left over, 5 files left out when it was packed" in verified
    words = ("--by", "evaluator", "--baseline", "plain", "--format", "csv")
    assert done("compare", light, *words) == done("compare", packed, *words).replace(str(packed), str(light))
    refused = ddbench("convert", "8b", tmp_path / "set.safetensors", "--store", light)
    assert_refused(refused, "set.safetensors was left out when the store was packed", "unpack a file that holds it")
    assert "was left out when the store was packed" in done("report", light, "-o", "-")


def test_filters_choose_scores_with_all_that_they_rest_on(places, tmp_path):
    folder, _ = places
    part = tmp_path / "part.tar.xz"
    done("results", "pack", folder, part, "--evaluator", "kd", "--iterations", "2", "--ipc", "1")
    cells = json.loads(done("results", "list", "--json", "--store", part))["cells"]
    assert sorted(cell["kind"] for cell in cells) == ["artifact", "distilled", "student"]
    assert {cell["result"]["evaluator"].partition("[")[0] for cell in cells if cell["kind"] == "student"} == {"kd"}
    assert "0 things wrong" in done("results", "verify", "--store", part)


def test_a_filter_that_chooses_nothing_is_refused(places, tmp_path):
    refused = ddbench("results", "pack", places[0], tmp_path / "part.tar.xz", "--method", "dcx")
    assert_refused(refused, "--method dcx", "dc")
    assert not (tmp_path / "part.tar.xz").exists()


@pytest.mark.parametrize(
    "words",
    [
        "run --method random --dataset digits --store {}",
        "run --method random --dataset digits --dry-run --store {}",
        "status --store {}",
        "results discard 8b --store {}",
        "results clean --store {}",
        "results path 8b --store {}",
    ],
)
def test_what_needs_a_folder_says_how_to_make_one(places, words):
    packed = places[1]
    before = packed.read_bytes()
    refused = ddbench(*words.format(packed).split())
    assert_refused(refused, f"{packed} is a file and not a folder", "`ddbench results unpack` makes a folder of it")
    assert packed.read_bytes() == before


@pytest.mark.parametrize("words", ["results list --store {}", "compare {}", "report {}", "results unpack {} new"])
def test_another_file_is_no_store(tmp_path, words):
    (tmp_path / "notes.txt").write_text("hello")
    refused = ddbench(*words.format(tmp_path / "notes.txt").split())
    assert_refused(refused, "notes.txt cannot be read as a packed store (it is not an xz file)", "results pack")


def test_a_file_that_is_not_there_is_not_unpacked(tmp_path):
    refused = ddbench("results", "unpack", tmp_path / "none.tar.xz", tmp_path / "new")
    assert_refused(refused, "none.tar.xz cannot be read as a packed store", "there is no such file")


def test_doctor_says_that_a_packed_store_is_no_folder_to_write_to(places):
    check = next(check for check in disks(places[1]) if check.name == "store")
    assert check.status == "broken"
    assert "is a file and not a folder" in check.detail
