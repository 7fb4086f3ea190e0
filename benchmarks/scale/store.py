"""How long reading a large store takes: `python benchmarks/scale/store.py [CELLS...] [-- VERB...]`.

Makes a synthetic store of each size in a temporary folder, runs the verbs on it as processes of their own, three times
each, and prints the shortest wall-clock time.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
VERBS = {
    "compare": ["compare", "{store}", "--by", "pool"],
    "compare csv": ["compare", "{store}", "--by", "pool", "--format", "csv"],
    "compare by method": ["compare", "{store}", "--by", "method", "--baseline", "dc", "--format", "csv"],
    "results list": ["results", "list", "--store", "{store}"],
    "results verify": ["results", "verify", "--store", "{store}"],
    "report": ["report", "{store}", "--output", "-"],
}


def main():
    from synthetic import study_of, write_store

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="*", type=int, default=[2_500, 5_000, 10_000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for cells in arguments.cells:
        with tempfile.TemporaryDirectory() as folder:
            records = list(study_of(cells))
            store = write_store(Path(folder) / "store", records)
            for name, words in VERBS.items():
                seconds = min(timed([word.format(store=store) for word in words]) for _ in range(arguments.repeats))
                print(f"{len(records):6} cells  {name:20} {seconds:5.2f} s", flush=True)


def timed(words):
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "harness", *words], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
