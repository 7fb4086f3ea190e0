"""The page's section on the data, held against the images that the study read, and its descriptions in stores."""

import base64
import hashlib
import io
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from pages import CHROMIUM, Page, browse, tables
from PIL import Image
from studies import EVALUATOR, POOL, ddbench, records, small_run, stripes

from harness.plugins.discovery import plugins
from harness.report.results import read_results
from harness.store.data_descriptions import DataDescriptions
from harness.store.files.reading import with_checksum
from harness.store.packing import Selection, open_store, pack, unpack
from harness.store.store import Store
from harness.store.verification import verify

pytestmark = pytest.mark.usefixtures("blank_pictures")

COUNTS = (12, 2, 5)
CLASSES = ["round", "<script>alert(1)</script>", "flat"]
STUDY = {"method": ["random", "whole"], "architecture": ["mlp[width=8]", "mlp[width=4]"], "pool": POOL}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Three classes of 12, 2 and 5 colour images, in no order; the page's numbers are computed from these arrays."""
    images, labels = stripes(12, channels=3)
    chosen = np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate(COUNTS)])
    chosen = np.random.default_rng(0).permutation(chosen)
    test, test_labels = stripes(6, channels=3, seed=1)
    file = tmp_path_factory.mktemp("arrays") / "uneven.npz"
    parts = {"x_train": images[chosen], "y_train": labels[chosen], "x_test": test, "y_test": test_labels}
    np.savez(file, **parts, classes=CLASSES)
    return file, parts


@pytest.fixture(scope="module")
def store(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("described") / "store"
    small_run(arrays[0], folder, **STUDY)
    return folder


@pytest.fixture
def copy(store, tmp_path):
    return shutil.copytree(store, tmp_path / "copy")


def page_of(store, tmp_path, *words):
    file = tmp_path / "page.html"
    result = ddbench("report", store, "--output", file, *words)
    assert result.exit_code == 0, result.output
    return file.read_text()


def data_table(text):
    """By the heading of each row of the section's table, its cell; None without the section."""
    rows = [rows for caption, rows in tables(text).items() if caption.startswith("The real images")]
    return dict(rows[0][1:]) if rows else None


def real_pictures(text):
    return [image["attrs"]["src"] for image in Page(text).all("img") if image["attrs"]["alt"].startswith("Real images")]


def description_in(store):
    (file,) = (store / "data").glob("*/description.json")
    return file


def rewrite(file, **changes):
    """Change a description, with a checksum that is right again."""
    content = {**json.loads(file.read_text()), **changes}
    content.pop("checksum")
    file.write_text(json.dumps(with_checksum(content)))


# --- numbers and images are those of the data -------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_arrays(store, arrays, tmp_path):
    text, parts = page_of(store, tmp_path), arrays[1]
    shown = data_table(text)
    pixels = parts["x_train"].reshape(-1, 3) / 255
    assert shown["classes"] == f"3 {', '.join(CLASSES)}"
    assert (shown["training images"], shown["test images"]) == ("19", "18")
    assert shown["smallest class, training images"] == f"2 class {CLASSES[1]}"
    assert shown["largest class, training images"] == "12 class round; 6.0 times the smallest"
    assert (shown["image size"], shown["channels"]) == ("16x16 height x width in pixels", "3 colour")
    assert [float(value) for value in shown["mean"].split()] == pytest.approx(pixels.mean(0), abs=6e-4)
    assert [float(value) for value in shown["standard deviation"].split()] == pytest.approx(pixels.std(0), abs=6e-3)
    assert not Page(text).all("script")


def test_the_upper_bound_is_the_mean_of_students_of_all_images(store, tmp_path):
    shown = data_table(page_of(store, tmp_path))
    results = [record["result"] for record in records(store).values() if record["kind"] == "student"]
    for width in (4, 8):
        values = [
            result["accuracy"]
            for result in results
            if result["method"] == "whole" and result["architecture"] == f"mlp[width={width}]"
        ]
        assert len(values) == 2
        assert shown[f"accuracy of whole on mlp[width={width}], %"].startswith(f"{100 * sum(values) / 2:.1f} ±")


def test_real_images_stand_above_the_distilled_ones(store, arrays, tmp_path):
    text, parts = page_of(store, tmp_path), arrays[1]
    (source,) = real_pictures(text)  # above the set of `random`, and not above all images of `whole`
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    for label, count in enumerate(COUNTS):
        first = parts["x_train"][parts["y_train"] == label][:3]
        for row in range(3):
            tile = pixels[row * 18 : row * 18 + 16, label * 18 : label * 18 + 16]
            if row < count:
                assert np.array_equal(tile[..., :3], first[row])
            else:
                assert not tile.any(), "transparent where the class has no more images"
    strips = text.split('<div class="strip">')
    place = next(index for index, strip in enumerate(strips) if source in strip)
    assert "<span>real</span>" in strips[place]
    assert "Images of random" in strips[place + 1]
    widths = [Page(f"<p>{strip.partition('</div>')[0]}</p>").all("img")[0] for strip in strips[place : place + 2]]
    assert widths[0]["attrs"]["width"] == widths[1]["attrs"]["width"]


def test_large_images_are_scaled_down_and_validation_is_named(tmp_path):
    images, labels = stripes(4, classes=2, size=96)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images[:6], y_test=labels[:6])
    small_run(tmp_path / "a.npz", tmp_path / "store", method="random", score_on="validation")
    description = json.loads(description_in(tmp_path / "store").read_text())
    assert description["shape"] == [1, 96, 96]
    with Image.open(description_in(tmp_path / "store").with_name("images.png")) as picture:
        assert (picture.size, picture.mode) == ((2 * 64, 3 * 64), "L")
    shown = data_table(page_of(tmp_path / "store", tmp_path))
    assert (shown["training images"], shown["validation images"]) == ("6", "2")
    assert shown["largest class, training images"] == "3 balanced"


# --- descriptions travel with stores ----------------------------------------------------------------------------------


def test_packing_and_unpacking_carry_the_description(store, tmp_path):
    pack(Store(store), tmp_path / "packed.tar.xz")
    unpack(tmp_path / "packed.tar.xz", tmp_path / "again")
    for place in (tmp_path / "packed.tar.xz", tmp_path / "again"):
        text = page_of(place, tmp_path)
        assert data_table(text) == data_table(page_of(store, tmp_path))
        assert len(real_pictures(text)) == 1
        assert list(verify(open_store(place))) == []


def test_without_sets_no_real_image_leaves_the_store(store, tmp_path):
    pack(Store(store), tmp_path / "light.tar.xz", Selection(sets=False))
    unpack(tmp_path / "light.tar.xz", tmp_path / "light")
    assert not list((tmp_path / "light").rglob("*.png"))
    assert list(verify(Store(tmp_path / "light"))) == []
    text = page_of(tmp_path / "light", tmp_path)
    assert data_table(text)["training images"] == "19"
    assert not real_pictures(text)


def test_a_part_of_a_store_has_the_descriptions_of_its_data_alone(data, copy, tmp_path):
    keys, own = set(Store(copy).attempts()), DataDescriptions(copy).all_keys()
    small_run(data, copy, method="random")
    assert len(DataDescriptions(copy).all_keys()) == 2
    pack(Store(copy), tmp_path / "part.tar.xz", Selection(keys=keys))
    part = open_store(tmp_path / "part.tar.xz")
    assert DataDescriptions(part.path).all_keys() == own


def test_a_store_without_descriptions_has_no_section_and_a_run_adds_it(store, arrays, copy, tmp_path):
    whole = page_of(store, tmp_path)
    before = {path.name: path.read_bytes() for path in description_in(copy).parent.iterdir()}
    shutil.rmtree(copy / "data")
    assert list(verify(Store(copy))) == []
    text = page_of(copy, tmp_path)
    assert data_table(text) is None
    assert 'href="#data"' not in text
    assert not real_pictures(text)
    cells = records(copy)
    small_run(arrays[0], copy, **STUDY)
    assert records(copy) == cells
    assert {path.name: path.read_bytes() for path in description_in(copy).parent.iterdir()} == before
    assert data_table(page_of(copy, tmp_path)) == data_table(whole)


def test_of_several_stores_the_first_that_has_it_counts(store, copy, tmp_path):
    shutil.rmtree(copy / "data")
    assert data_table(page_of(copy, tmp_path, store)) == data_table(page_of(store, tmp_path))
    (first,) = read_results([store], plugins().registry).data.values()
    both = read_results([copy, store], plugins().registry)
    assert {both.data_of(score).train for score in both.scores} == {first.train}


def test_a_set_from_a_file_is_described_by_the_images_that_score_it(store, arrays, tmp_path):
    (file, *_) = store.rglob("set.safetensors")
    words = (
        "--dataset",
        f"arrays[path={arrays[0]}]",
        "--evaluator",
        EVALUATOR,
        "--architecture",
        "mlp[width=8]",
    )
    assert ddbench("eval", file, *words, "--store", tmp_path / "store").exit_code == 0
    assert data_table(page_of(tmp_path / "store", tmp_path))["training images"] == "19"


def test_two_runs_that_add_the_same_description_do_no_harm(copy):
    descriptions = DataDescriptions(copy)
    (key,) = descriptions.all_keys()
    description = descriptions.read(key)
    descriptions.add(description, descriptions.picture(description))
    assert [path.name for path in (copy / "data").iterdir()] == [key]
    assert list(verify(Store(copy))) == []


# --- damaged and hostile descriptions ---------------------------------------------------------------------------------


def promising(width, height):
    """A PNG whose header promises a size, with hardly any pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 100)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PICTURES = {
    "garbage": b"x",
    "another format": b"GIF89a" + bytes(40),
    "a bomb": promising(3 * 20000, 3 * 20000),
    "cut off": promising(48, 48),
    "another size": promising(47, 48),
}


@pytest.mark.parametrize("what", PICTURES)
def test_a_hostile_picture_costs_the_pictures_alone(copy, tmp_path, what):
    file = description_in(copy)
    file.with_name("images.png").write_bytes(PICTURES[what])
    digest = hashlib.sha256(PICTURES[what]).hexdigest()
    rewrite(file, picture={"digest": digest, "columns": 3, "rows": 3})
    text = page_of(copy, tmp_path)
    assert data_table(text)["training images"] == "19"
    assert not real_pictures(text)
    assert "real images not shown" in Page(text).text


CHANGES = {
    "no classes": {"classes": []},
    "a negative count": {"classes": [{"name": "a", "train": -1, "scored": 0}]},
    "a name that is a number": {"classes": [{"name": 3, "train": 1, "scored": 0}]},
    "more columns than classes": {"picture": {"digest": "ab" * 32, "columns": 4, "rows": 3}},
    "too many rows": {"picture": {"digest": "ab" * 32, "columns": 3, "rows": 10**9}},
    "no digest": {"picture": {"digest": "../x", "columns": 3, "rows": 3}},
    "two channels of mean": {"mean": [0.1, 0.2]},
    "no size": {"shape": [3, 0, 16]},
    "other data": {"problem": "ab" * 32},
    "another split": {"score_on": "train"},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_hostile_description_is_a_note_and_not_a_broken_page(copy, tmp_path, what):
    file = description_in(copy)
    rewrite(file, **CHANGES[what])
    text = page_of(copy, tmp_path)
    assert data_table(text) is None
    assert "data set not described" in Page(text).text
    (line,) = verify(Store(copy))
    assert str(file) in line
    assert "delete this folder" in line


@pytest.mark.parametrize("name", ["description.json", "images.png"])
@pytest.mark.parametrize("how", ["flipped", "missing", "a folder"])
def test_a_damaged_description_is_a_note_and_named(copy, tmp_path, name, how):
    file = description_in(copy).with_name(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if how == "flipped":
        file.write_bytes(content)
    elif how == "a folder":
        file.mkdir()
    notes = Page(page_of(copy, tmp_path)).text
    assert ("data set not described" in notes, "real images not shown" in notes) == (name[0] == "d", name[0] == "i")
    (line,) = verify(Store(copy))
    assert str(file) in line


@pytest.mark.parametrize("name", ["strange", "AB" * 32, "a \n\tb"])
def test_what_is_no_description_is_named_and_not_packed(copy, tmp_path, name):
    (copy / "data" / name).mkdir()
    (line,) = verify(Store(copy))
    assert "does not belong in a store" in line
    pack(Store(copy), tmp_path / "packed.tar.xz")
    assert len(DataDescriptions(open_store(tmp_path / "packed.tar.xz").path).all_keys()) == 1


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off(store, copy, data, tmp_path, width):
    small_run(data, copy, method="whole")
    page_of(copy, tmp_path)
    measures, said, _ = browse(tmp_path / "page.html", tmp_path / "browser", width)
    assert said == []
    assert measures["cut"] == []
    assert measures["images"] == measures["decoded"]
