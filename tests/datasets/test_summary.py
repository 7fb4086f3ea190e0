"""The description of one's own data: by `ddbench datasets show`, and at the start of a run."""

import json

import numpy as np
import pytest
from PIL import Image
from studies import ddbench, small_words

COUNTS = {"cat": (4, 2), "dog": (3, 1), "owl": (5, 1)}


@pytest.fixture
def folder(tmp_path):
    """A folder of three classes whose red is 0 in half of the pixels and 255 in the others, green 51, and blue 0."""
    pixels = np.zeros((8, 6, 3), dtype=np.uint8)
    pixels[::2, :, 0], pixels[..., 1] = 255, 51
    for name, counts in COUNTS.items():
        for split, count in zip(("train", "test"), counts, strict=True):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(pixels).save(tmp_path / "mine" / split / name / f"{index}.png")
    return tmp_path / "mine"


def test_a_folder_is_described(folder):
    shown = json.loads(ddbench("datasets", "show", f"folder[path={folder}]", "--json").stdout)["images"]
    assert shown["classes"] == [{"name": n, "train": train, "test": test} for n, (train, test) in COUNTS.items()]
    assert (shown["train"], shown["test"]) == (12, 4)
    assert shown["smallest_class"] == {"name": "dog", "train": 3}
    assert shown["shape"] == {"channels": 3, "height": 8, "width": 6}
    assert shown["mean"] == pytest.approx([0.5, 0.2, 0], abs=1e-4)
    assert shown["std"] == pytest.approx([0.5, 0.001, 0.001], abs=1e-4), "of constant channels the least"
    text = ddbench("datasets", "show", f"folder[path={folder}]").stdout
    assert "cat 4+2, dog 3+1, owl 5+1" in text
    assert "dog, 3 training images" in text
    assert "8x6, channels: 3" in text


def test_what_is_not_downloaded_is_described_without_its_images(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path))
    result = ddbench("datasets", "show", "cifar10")
    assert result.exit_code == 0
    assert "Its images cannot be read: cifar10 is missing" in result.stdout
    details = json.loads(ddbench("datasets", "show", "cifar10", "--json").stdout)
    assert details["images"] is None
    assert "ddbench prepare cifar10" in details["images_unread"]


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_a_run_begins_with_two_lines_and_says_nothing_when_all_is_done(folder, tmp_path, executor):
    dataset = f"folder[path={folder},size=16]"
    words = small_words("", tmp_path / "store", dataset=dataset, method="random", students=1, executor=executor)
    result = ddbench("run", *words)
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(f"{dataset}: ")]
    # Enlarged twofold, red is 1/4 away from its mean in 14 rows, and 1/2 in the two at the edges.
    assert [line.removeprefix(f"{dataset}: ") for line in lines] == [
        "3 classes (cat, dog, owl); 12 training and 4 test images (3 to 5 of a class, fewest of dog)",
        "images of 16x16 pixels, colour; mean 0.500 0.200 0.000, std 0.292 0.001 0.001; normalised by these",
    ]
    assert not [log for log in (tmp_path / "store" / "runs").rglob("*.log") if "3 classes" in log.read_text()]
    assert "3 classes" not in ddbench("run", *words).stderr
