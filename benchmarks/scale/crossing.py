"""How long the whole crossing takes, every method through every pool under both evaluators, as a user runs it:

    python benchmarks/scale/crossing.py

It runs `ddbench run --config tests/crossing.toml` on an empty store, which is removed afterwards.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

CONFIG = Path(__file__).parents[2] / "tests" / "crossing.toml"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--executor", default="local[slots=2]", show_default=True, help="What starts the jobs.")
@click.option("--method", default="all", show_default=True, help="Only these methods, with commas between them.")
@click.option("--pool", default="all", show_default=True, help="Only these pools.")
def main(executor, method, pool):
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "harness", "run", "--config", CONFIG, "--store", Path(folder) / "store"]
        command += ["--executor", executor, "--method", method, "--pool", pool, "--json"]
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise click.ClickException(done.stderr.splitlines()[-1])
    result = json.loads(done.stdout)
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sets = sum(cell["kind"] == "distilled" for cell in result["cells"])
    click.echo(f"{sets} sets, {len(result['cells'])} cells, {len(result['rows'])} rows by {executor}")
    click.echo(f"{seconds:.0f} s, of which the processors worked {work:.0f} s")


if __name__ == "__main__":
    main()
