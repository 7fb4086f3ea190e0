import numpy as np
import pytest

from harness.errors import DataError


def test_arrays_are_served_as_they_are(load, arrays, noise):
    path = arrays(classes=np.array(["a", "b", "c"]))
    raw = load(f"arrays[path={path}]")
    assert raw.classes == ("a", "b", "c")
    assert np.array_equal(raw.train.images.numpy(), noise(12, 6, 6, 3, seed=1).transpose(0, 3, 1, 2))
    assert raw.test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_without_names_the_classes_are_called_by_their_labels(load, arrays):
    assert load(f"arrays[path={arrays()}]").classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("shape", "served"),
    [
        ((6, 5), (1, 6, 5)),
        ((6, 5, 1), (1, 6, 5)),
        ((6, 5, 3), (3, 6, 5)),
        ((1, 6, 5), (1, 6, 5)),
        ((3, 6, 5), (3, 6, 5)),
        ((3, 7, 3), (3, 3, 7)),  # both could be: the channels are last
        ((1, 3, 3), (3, 1, 3)),
    ],
)
def test_layouts(load, arrays, noise, shape, served):
    raw = load(f"arrays[path={arrays(x_train=noise(12, *shape), x_test=noise(6, *shape))}]")
    assert tuple(raw.train.images.shape) == (12, *served)
    assert tuple(raw.test.images.shape) == (6, *served)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_become_the_nearest_level(load, arrays, noise, dtype):
    levels = noise(12, 6, 6)
    floats = (levels / 255).astype(dtype)
    raw = load(f"arrays[path={arrays(x_train=floats, x_test=floats[:6])}]")
    assert np.array_equal(raw.train.images[:, 0].numpy(), levels)


def with_value(value: float) -> np.ndarray:
    images = np.full((12, 6, 6), 0.5)
    images[3, 2, 1] = value
    return images


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"x_test": None}, "has no 'x_test': it must hold x_train, y_train, x_test, y_test"),
        ({"x_train": np.zeros((12, 6), np.uint8)}, r"x_train must be \(n, h, w\).*not \(12, 6\)"),
        ({"x_train": np.zeros((12, 6, 6, 2), np.uint8)}, r"x_train must be .* c 1 or 3, not \(12, 6, 6, 2\)"),
        ({"x_train": np.zeros((12, 6, 6), np.int64)}, "x_train must be uint8 or floats.*not int64"),
        ({"x_train": with_value(np.nan)}, "x_train has NaN or infinite values"),
        ({"x_train": with_value(np.inf)}, "x_train has NaN or infinite values"),
        ({"x_train": with_value(1.5)}, r"x_train has floats in \[0.5, 1.5\]: scale them to \[0, 1\]"),
        ({"x_train": with_value(-0.1)}, r"x_train has floats in \[-0.1, 0.5\]"),
        ({"x_test": np.zeros((5, 6, 6, 3), np.uint8)}, "x_test has 5 images but y_test has 6 labels"),
        ({"y_train": np.zeros((12, 1), np.int64)}, r"y_train must be integers of shape \(n,\), not int64 of shape"),
        ({"y_test": np.zeros(6)}, "y_test must be integers.*not float64"),
        ({"y_test": np.array([0, 1, 2, 3, 0, 1])}, "y_test has the label 3, but there are 3 classes: 0 ... 2"),
        ({"y_test": np.array([0, 1, 2, -1, 0, 1])}, "y_test has the label -1"),
        ({"y_test": np.array([0, 1, 1, 1, 0, 1])}, "the test set has no image of class '2'"),
        ({"y_train": np.arange(12) % 3 * 2}, "y_train must have every label from 0 up, but has no 1 and goes to 4"),
        ({"y_train": np.arange(12) % 3 + 10**12}, "has no 0 and goes to"),
        ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "at least two classes, not 1"),
        ({"x_test": np.zeros((6, 5, 6, 3), np.uint8)}, r"training images are \(3, 6, 6\) but test images \(3, 5, 6\)"),
        ({"x_test": np.zeros((6, 6, 6), np.uint8)}, r"training images are \(3, 6, 6\) but test images \(1, 6, 6\)"),
        ({"x_train": np.zeros((12, 0, 6), np.uint8)}, "the training set must have uint8 images"),
        ({"x_train": np.zeros((0, 6, 6)), "y_train": np.zeros(0, int)}, r"y_train must be integers .* shape \(0,\)"),
        ({"classes": np.array([1, 2, 3])}, "classes must be a list of names"),
        ({"classes": np.array(["a", "b"])}, "y_train has the label 2, but there are 2 classes"),
        ({"classes": np.array(["a", "b", "c", "d"])}, "the training set has no image of class 'd'"),
        ({"x_train": np.array([None, object()])}, "cannot be read as plain arrays"),
    ],
)
def test_bad_arrays_are_one_clear_line(problem, arrays, changes, line):
    path = arrays(**changes)
    with pytest.raises(DataError, match=line) as caught:
        problem(f"arrays[path={path}]")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_npz(load, arrays, tmp_path):
    with pytest.raises(DataError, match=r"mine\.npz does not exist: path= must name an \.npz file with x_train"):
        load(f"arrays[path={tmp_path}/mine.npz]")
    np.save(tmp_path / "mine.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"mine\.npy is not a readable \.npz file"):
        load(f"arrays[path={tmp_path}/mine.npy]")
    path = arrays()
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as plain arrays"):
        load(f"arrays[path={path}]")
