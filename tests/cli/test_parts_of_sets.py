"""What is said of a file that holds only part of a set, and of labels that may stand for other classes."""

import json

import numpy as np
import pytest
import torch
from studies import ARCHITECTURE, EVALUATOR, ddbench, records, stripes, write_arrays

WORDS = ("--evaluator", EVALUATOR, "--architecture", ARCHITECTURE, "--students", "1")


def vico(path, labels):
    torch.save({"data": [[torch.zeros(len(labels), 1, 16, 16), torch.tensor(labels)]], "accs_all_exps": {}}, path)
    return path


def said(file, data, tmp_path, *more):
    """What `ddbench eval` prints of a file, the table's notes, and the records of its students."""
    how = ("--dataset", f"arrays[path={data},normalize=mnist]", "--store", tmp_path / "store")
    result = ddbench("eval", file, *how, *WORDS, *more)
    assert result.exit_code == 0, result.output
    return result.stdout, [record["result"] for record in records(tmp_path / "store").values()]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1], "holds only part of a set: 2 images of 2 of 3 classes, none of '2'; if this is one of several files, "
                 "its labels 0 ... 1 may stand for other classes"),
        ([0], "1 image of 1 of 3 classes, none of '1', '2'; if this is one of several files"),
        ([1, 2, 2], "holds only part of a set: 3 images of 2 of 3 classes, none of '0'"),
        ([0, 0, 1, 2], "has not the same number of images of each class: 4 images of 3 of 3 classes, 1 of '1', "
                       "but 2 of '0'"),
    ],
)  # fmt: skip
def test_a_part_of_a_set_is_scored_with_one_line_that_says_so(data, tmp_path, labels, says):
    file = vico(tmp_path / "res.pt", labels)
    table, results = said(file, data, tmp_path)
    (line,) = [line for line in table.splitlines() if line.startswith("entry 0 of res.pt h")]
    assert line.startswith("entry 0 of res.pt ")
    assert says in line
    assert ("several files" in line) == ("several files" in says)
    assert [result["set_part"] for result in results] == [line]
    converted = ddbench("convert", file, tmp_path / "x.npz", "--dataset", f"arrays[path={data},normalize=mnist]")
    assert line in converted.stdout.splitlines()
    assert (
        line.replace("entry 0 of res.pt", "x.npz") in ddbench("convert", tmp_path / "x.npz", tmp_path / "y.npz").stdout
    )


def test_nothing_is_said_of_a_whole_set(data, tmp_path):
    table, results = said(vico(tmp_path / "res.pt", [0, 1, 2, 2, 1, 0]), data, tmp_path)
    assert "images of" not in table
    assert all("set_part" not in result for result in results)


@pytest.mark.parametrize("name", ["set.part2.pt", "res_phase_0.pt", "res-00001-of-00004.pt", "Shard3.pt", "2of4.pt"])
def test_one_of_several_files_says_so_by_its_name(data, tmp_path, name):
    table, results = said(vico(tmp_path / name, [0, 1, 2]), data, tmp_path)
    (line,) = [line for line in table.splitlines() if "one of several files" in line]
    assert line.endswith("holds only part of a set: 3 images of 3 of 3 classes")
    assert [result["set_part"] for result in results] == [line]


@pytest.mark.parametrize("name", ["apartment1.pt", "res_DC_10ipc_1000.pt", "particle.pt", "split.pt", "proof2.pt"])
def test_other_names_say_nothing(data, tmp_path, name):
    table, _ = said(vico(tmp_path / name, [0, 1, 2]), data, tmp_path)
    assert "several files" not in table


def test_a_files_name_cannot_break_the_line(data, tmp_path):
    table, _ = said(vico(tmp_path / "a\nb\x1b[2J.pt", [0, 1]), data, tmp_path)
    (line,) = [line for line in table.splitlines() if "part of a set" in line]
    assert line.startswith(r"entry 0 of a\nb\x1b[2J.pt holds only")


def test_soft_labels_count_by_their_largest_weight(data, tmp_path):
    weights = np.array([[0.6, 0.2, 0.2], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1]], np.float32)
    np.savez(tmp_path / "set.npz", images=np.zeros((3, 1, 16, 16), np.float32), labels=weights)
    table, _ = said(tmp_path / "set.npz", data, tmp_path)
    assert "3 images of 2 of 3 classes, by the largest weight of each label, none of '2'" in table


def test_many_missing_classes_are_counted(tmp_path):
    data = write_arrays(tmp_path / "a.npz", classes=16)
    table, _ = said(vico(tmp_path / "res.pt", [3, 4]), data, tmp_path)
    assert "none of '0', '1', '2', '5', '6', and 9 more" in table


NUMBERS = [str(number) for number in range(12)]


@pytest.mark.parametrize("by_value", [True, False])
def test_labels_without_names_for_numbered_classes_say_in_which_order(tmp_path, by_value):
    names = NUMBERS if by_value else sorted(NUMBERS)
    data = write_arrays(tmp_path / "a.npz", **dict(zip(("x_train", "y_train"), stripes(4, classes=12), strict=True)),
                        **dict(zip(("x_test", "y_test"), stripes(2, classes=12, seed=1), strict=True)),
                        classes=np.array(names))  # fmt: skip
    file = vico(tmp_path / "res.pt", list(range(12)))
    table, _ = said(file, data, tmp_path)
    (line,) = [line for line in table.splitlines() if "no class names" in line]
    assert line.startswith("entry 0 of res.pt has labels but no class names: label 2 is taken for ")
    how = ("class '2'", "as text it is '10'") if by_value else ("class '10'", "by value it is '2'")
    assert all(part in line for part in how)
    out = tmp_path / "named.safetensors"
    converted = ddbench("convert", file, out, "--dataset", f"arrays[path={data},normalize=mnist]")
    assert line in converted.stdout.splitlines()
    table, _ = said(out, data, tmp_path)
    assert "no class names" not in table


@pytest.mark.parametrize("names", [["0", "1", "2"], ["00", "01", "10"], ["a", "b", "c"], ["1", "10", "x"]])
def test_nothing_is_said_where_the_orders_agree(tmp_path, names):
    data = write_arrays(tmp_path / "a.npz", classes=np.array(names))
    table, _ = said(vico(tmp_path / "res.pt", [0, 1, 2]), data, tmp_path)
    assert "no class names" not in table


def test_the_lines_are_no_part_of_the_json(data, tmp_path):
    table, _ = said(vico(tmp_path / "res.pt", [0, 1]), data, tmp_path, "--json")
    assert set(json.loads(table)) == {"store", "cells", "rows", "warnings"}
