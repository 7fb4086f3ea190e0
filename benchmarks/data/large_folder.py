"""Time and memory of a folder that does not fit in memory: `python benchmarks/data/large_folder.py [GIGABYTES]`.

Writes JPEG images of 128x128 whose decoded pixels take so many gigabytes (3), and then, each in a process of its own
that may map 600 MB of data beside what its imports take: decodes them into the mapped file, loads them again, cuts a
validation split, and gathers real batches. Prints a Markdown table with the wall-clock time and the peak of anonymous
memory.
"""

import argparse
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]
SIDE, CLASSES, TEST = 128, 10, 100
ALLOWED = 600 * 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gigabytes", nargs="?", type=float, default=3.0)
    count = int(parser.parse_args().gigabytes * 1e9 / (3 * SIDE**2))
    print("| step | wall-clock time | anonymous memory at its peak, beside the imports |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        write(Path(folder), count)
        print(f"| write {count:,} images (not measured) | {time.perf_counter() - begun:.0f} s | |", flush=True)
        for step in (decode, load_again, hold_out, gather):
            context = multiprocessing.get_context("spawn")
            process = context.Process(target=measured, args=(step, folder))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{step.__name__} failed")


def write(folder, count):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(64):
        stream = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
        encoded.append(stream.getvalue())
    for split, images in (("train", count), ("test", TEST)):
        for index in range(images):
            place = folder / "images" / split / str(index % CLASSES)
            place.mkdir(parents=True, exist_ok=True)
            # What follows the end of a JPEG is not decoded: it makes each file another.
            (place / f"{index}.jpg").write_bytes(encoded[index % 64] + index.to_bytes(8, "big"))


def problem(folder, **how):
    from harness.datasets.problems import make_problem
    from harness.plugins.discovery import plugins

    dataset = plugins().registry.resolve("dataset", f"folder[path={folder}/images]")
    return make_problem(dataset, root=Path(folder) / "root", **how)


def decode(folder):
    """Decode the folder into the mapped file."""
    assert problem(folder).train.on_disk


def load_again(folder):
    """Load it again: hash all files and the decoded one."""
    _ = problem(folder).fingerprint


def hold_out(folder):
    """Cut the validation split, into files of its own."""
    problem(folder, hold_out=True)


def gather(folder):
    """Load it, and gather 100 batches of 64 real images."""
    import torch

    real = problem(folder)
    for batch in range(100):
        real.real_batch(batch % CLASSES, 64, torch.Generator().manual_seed(batch))


def measured(step, folder):
    import kornia  # noqa: F401 - what every run imports counts as the start
    import torch
    import torchvision  # noqa: F401

    torch.set_num_threads(1)
    start = status("RssAnon")
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + ALLOWED,) * 2)
    peak, done = [start], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak.append(max(peak.pop(), status("RssAnon")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    try:
        step(folder)
    finally:
        seconds = time.perf_counter() - begun
        done.set()
        watcher.join()
    what = step.__doc__.rstrip(".").lower()
    print(f"| {what} | {seconds:.1f} s | {(peak[0] - start) / 1e6:.0f} MB |", flush=True)


def status(field):
    with open(f"/proc/{os.getpid()}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
