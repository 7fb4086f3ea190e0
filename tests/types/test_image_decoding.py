"""What an image file becomes, in data sets and in distilled sets alike."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from harness import load_distilled
from harness.builtin import register_datasets
from harness.errors import DataError
from harness.plugins.registry import Entry, Registry
from harness.types.data.images import Fitting, decode_files, read_headers
from harness.types.data.preprocessing import Normalize

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))


def pixels(file):
    (image,) = decode_files([str(file)], Fitting())
    return image.numpy()


def of_data_set(folder, file):
    """The first image of a data set whose class ``a`` holds the file."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            target = folder / split / name / f"0{file.suffix}"
            target.write_bytes(file.read_bytes())
    registry = Registry()
    register_datasets(lambda name, target, summary: registry.add(Entry("dataset", name, target, summary, "x", "1")))
    raw = registry.resolve("dataset", f"folder[path={folder}]").make().load(folder / "root")
    return raw.train.images[0].numpy()


def of_set(folder, file):
    """The first image of a distilled set of the file."""
    (folder / "a").mkdir(parents=True)
    (folder / "a" / f"0{file.suffix}").write_bytes(file.read_bytes())
    read = load_distilled(folder, preprocessing=Normalize.named("cifar10", 3))
    return (read.preprocessing.invert(read.images)[0] * 255).round().numpy().astype(np.uint8)


READERS = pytest.mark.parametrize("read", [of_data_set, of_set])


# Orientation


def oriented(folder, kind, orientation):
    """A file that viewers show as `PICTURE`; ``late``: its EXIF data stand behind the pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # what undoes how it will be turned
    stored = PICTURE if back is None else PICTURE.transpose(Image.Transpose(back))
    file = folder / f"{kind}.{'png' if kind == 'late' else kind}"
    if kind == "webp":
        stored.save(file, exif=exif, lossless=True)
    elif kind == "tif":
        stored.save(file, tiffinfo={0x0112: orientation})
    else:
        stored.save(file, exif=exif)
    if kind == "late":
        data = file.read_bytes()
        at = data.index(b"eXIf") - 4
        length = 12 + int.from_bytes(data[at : at + 4], "big")
        end = data.index(b"IEND") - 4
        file.write_bytes(data[:at] + data[at + length : end] + data[at : at + length] + data[end:])
    assert ImageOps.exif_transpose(Image.open(file)).size == PICTURE.size
    return file


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "webp", "tif"])
def test_pictures_stand_as_viewers_show_them(tmp_path, kind, orientation):
    file = oriented(tmp_path, kind, orientation)
    assert np.array_equal(pixels(file).transpose(1, 2, 0), np.asarray(PICTURE))


@READERS
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_and_so_in_data_sets_and_in_sets(tmp_path, kind, read):
    file = oriented(tmp_path, kind, 6)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    assert np.array_equal(read(tmp_path / "set", file).transpose(1, 2, 0), shown)


def test_an_orientation_behind_the_pixels(tmp_path):
    """Before a PNG is decoded nobody knows it: of square images it is applied, and others are refused by their size."""
    file = oriented(tmp_path, "late", 3)
    assert np.array_equal(pixels(file).transpose(1, 2, 0), np.asarray(PICTURE))
    with pytest.raises(DataError, match="give size=N"):
        pixels(oriented(tmp_path, "late", 6))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0",  # a text where the number belongs
    ],
)
def test_damaged_metadata_are_passed_over(tmp_path, exif):
    PICTURE.save(tmp_path / "x.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = np.asarray(Image.open(tmp_path / "x.jpg").convert("RGB"))
    assert np.array_equal(pixels(tmp_path / "x.jpg").transpose(1, 2, 0), plain)


# Depth


def deep_png(path, colour_type, channels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes(range(2 * channels * 4))
    head = struct.pack(">IIBBBBB", 4, 3, 16, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * 3)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def deep_tiff(path, samples):
    """An uncompressed TIFF of 16 bits a sample, 4x3."""
    photometric, size = {1: 1, 3: 2, 4: 2}[samples], 4 * 3 * samples * 2
    entries = [(256, 3, 1, 4), (257, 3, 1, 3), (258, 3, samples, 16), (259, 3, 1, 1), (262, 3, 1, photometric),
               (273, 4, 1, 8), (277, 3, 1, samples), (278, 3, 1, 3), (279, 4, 1, size)]  # fmt: skip
    bits_at = 8 + size
    table = b"".join(
        struct.pack("<HHII", tag, kind, count, bits_at if tag == 258 and samples > 2 else value)
        for tag, kind, count, value in entries
    )
    bits = struct.pack("<4H", 16, 16, 16, 16)
    start = bits_at + len(bits)
    path.write_bytes(
        b"II*\0" + struct.pack("<I", start) + bytes(size) + bits + struct.pack("<H", len(entries)) + table + bytes(4)
    )
    return path


DEEP = {
    "grey PNG": lambda d: deep_png(d / "x.png", 0, 1),
    "colour PNG": lambda d: deep_png(d / "x.png", 2, 3),
    "grey PNG with transparency": lambda d: deep_png(d / "x.png", 4, 2),
    "colour PNG with transparency": lambda d: deep_png(d / "x.png", 6, 4),
    "grey TIFF": lambda d: deep_tiff(d / "x.tif", 1),
    "colour TIFF": lambda d: deep_tiff(d / "x.tif", 3),
    "float TIFF": lambda d: Image.fromarray(np.zeros((3, 4), np.float32)).save(d / "x.tif") or d / "x.tif",
    "grey PNM": lambda d: (d / "x.pgm").write_bytes(b"P5 4 3 65535\n" + bytes(24)) and d / "x.pgm",
    "colour PNM": lambda d: (d / "x.ppm").write_bytes(b"P6 4 3 65535\n" + bytes(72)) and d / "x.ppm",
    "colour PNM of 12 bits": lambda d: (d / "x.ppm").write_bytes(b"P6 4 3 4095\n" + bytes(72)) and d / "x.ppm",
    "colour PNM in text": lambda d: (d / "x.ppm").write_bytes(b"P3 1 1 1023\n9 9 9\n") and d / "x.ppm",
}


@pytest.mark.parametrize("what", DEEP)
def test_more_than_8_bits_a_channel_are_refused_in_colour_as_in_grey(tmp_path, what):
    with pytest.raises(DataError, match=r"x\.\w+ has more than 8 bits a channel: convert it to 8 bits"):
        read_headers([str(DEEP[what](tmp_path))], Fitting())


@READERS
def test_and_refused_in_data_sets_and_in_sets(tmp_path, read):
    with pytest.raises(DataError, match="has more than 8 bits a channel: convert it to 8 bits"):
        read(tmp_path / "set", deep_png(tmp_path / "x.png", 2, 3))


@pytest.mark.parametrize("save", [
    lambda path: PICTURE.save(path.with_suffix(".bmp")) or path.with_suffix(".bmp"),
    lambda path: PICTURE.save(path.with_suffix(".ppm")) or path.with_suffix(".ppm"),
    lambda path: PICTURE.save(path.with_suffix(".tif"), compression="tiff_lzw") or path.with_suffix(".tif"),
])  # fmt: skip
def test_8_bits_in_any_format(tmp_path, save):
    assert np.array_equal(pixels(save(tmp_path / "x")).transpose(1, 2, 0), np.asarray(PICTURE))


# Transparency


@READERS
def test_a_palette_with_transparency_warns_of_nothing(tmp_path, read):
    """Warnings are errors in these tests."""
    PICTURE.quantize(16).save(tmp_path / "x.png", transparency=bytes([0, 128] + [255] * 14))
    expected = np.asarray(Image.open(tmp_path / "x.png").convert("RGBA"))[:, :, :3]
    assert np.array_equal(read(tmp_path / "set", tmp_path / "x.png").transpose(1, 2, 0), expected)
