"""What the harness itself costs: `python benchmarks/scale/jobs.py [--jobs N] [--cells N] [--slots N ...]`.

Runs a method that does nothing, on the digits, through the executors `inline` and `local[slots=...]`, and prints jobs
(each a set with two students, three cells) a second; then plans, runs and compares one grid of many cells. Every figure
is of one process from its start to its end, imports included; `a job more` is the difference between many jobs and half
as many, so without them. With strace on the machine, it also counts the calls on files that a job takes.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STUDY = ["-m", "nothing", "-e", "nobody", "-d", "digits", "-a", "mlp", "--iterations", "1", "--ipc", "1"]
CALLS = "trace=%file,read,write,fsync,fdatasync,getdents64"
STUDENTS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=40, help="of each executor")
    parser.add_argument("--cells", type=int, default=10_000, help="of the large grid")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for executor in ["inline", *(f"local[slots={slots}]" for slots in arguments.slots)]:
            jobs_a_second(Path(folder), executor, arguments.jobs)
        large(Path(folder), arguments.cells)
        if shutil.which("strace"):
            calls(Path(folder))


def jobs_a_second(folder, executor, jobs):
    """Measure one executor: jobs a second, with and without the start."""
    half, whole = (distil(folder, executor, count) for count in (jobs // 2, jobs))
    more = (whole - half) / (jobs - jobs // 2)
    show(executor, f"{jobs} jobs in {whole:.1f} s, {jobs / whole:.2f} a second; a job more {1000 * more:.0f} ms")


def distil(folder, executor, jobs):
    """Seconds of a run of so many jobs."""
    store = folder / f"{executor}-{jobs}"
    words = ["run", *STUDY, "--distillations", jobs, "--students", 2, "--executor", executor, "--store", store]
    return timed(words)


def large(folder, cells):
    """One grid: planned, run, run again, compared."""
    sets = max(2, cells // (1 + 2 * STUDENTS))
    distillations = max(1, sets // 10)
    sweep = f"nothing[number=[{','.join(map(str, range(10)))}]]"
    store = folder / "large"
    words = ["run", "-m", sweep, *STUDY[2:], "-a", "lenet", "--distillations", distillations, "--students", STUDENTS]
    words += ["--store", store, "--executor", "inline"]
    cell_count = 10 * distillations * (1 + 2 * STUDENTS)
    for what, more in (("planned", ["--dry-run"]), ("run", []), ("run again", [])):
        show(f"{cell_count} cells", f"{what} in {timed([*words, *more]):.1f} s")
    show(f"{cell_count} cells", f"status in {timed(['status', '--store', store]):.1f} s")
    seconds = timed(["compare", store, "--by", "method", "--baseline", "nothing"])
    show(f"{cell_count} cells", f"compared in {seconds:.1f} s")


def calls(folder):
    """Calls on files of the store for each cell of a run, by name."""
    counts = {}
    for jobs in (10, 20):
        trace = folder / f"trace-{jobs}"
        store = folder / f"traced-{jobs}"
        words = ["run", *STUDY, "--distillations", jobs, "--students", 2, "--executor", "local", "--store", store]
        command = ["strace", "-f", "-y", "-e", CALLS, "-o", str(trace), *python(words)]
        subprocess.run(command, env=environment(), capture_output=True, check=True)
        lines = [line for line in trace.read_text(errors="replace").splitlines() if str(store) in line]
        for line in lines:
            if name := re.match(r"\d+\s+(\w+)\(", line):
                counts.setdefault(name[1], {10: 0, 20: 0})[jobs] += 1
    each = {name: (count[20] - count[10]) / 10 for name, count in counts.items()}
    show(
        "calls on the store for a job more", json.dumps({name: round(value, 1) for name, value in sorted(each.items())})
    )
    show("calls on the store for a job more", f"{sum(each.values()):.0f} in all, for 3 cells")


def timed(words):
    begun = time.perf_counter()
    subprocess.run(python(words), env=environment(), cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - begun


def python(words):
    return [sys.executable, "-m", "harness", *map(str, words)]


def environment():
    paths = [str(HERE / "nothing"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def show(what, value):
    print(f"{what:20} {value}", flush=True)


if __name__ == "__main__":
    main()
