"""Hours that tables 4 and 5 of the model-pool paper take at full size: `python benchmarks/gpu/estimate.py`.

From what dc.py and students.py measured on this machine (their JSON in $OUT or --resume): CIFAR-10, DC at ipc 1 and 10,
sets after 1000, 2000 and 3000 iterations, through five pools; plain and kd over six architectures; 5 distillations of
20 students. One process, one piece of work after the other.
"""

import argparse
import json
import os
from pathlib import Path

from bench import ARCHITECTURES, make

POOLS = ("single", "main-similar", "main-similar[preset=as-released]", "total-random", "main-model")
ITERATIONS = (1000, 2000, 3000)
IPC = (1, 10)
DISTILLATIONS, STUDENTS = 5, 20
GOAL = 8.0


def distillation_seconds(dc, pool, ipc):
    """Of one trajectory: each drawn architecture's seconds, ConvNets of any kind counted as the main one."""
    mix = make("pool", pool).distribution(ITERATIONS[-1])
    each = sum(share * dc[f"{name.split('[')[0]}, ipc {ipc}, tf32"]["seconds"] for name, share in mix.items())
    return each * ITERATIONS[-1]


def evaluation_seconds(students, ipc, many):
    """Of one set, by what is done: teachers, and students by evaluator and architecture."""
    parts = {"teachers": STUDENTS * students[f"teacher, ipc {ipc}"]["seconds"]}
    for evaluator in ("plain", "kd"):
        for name in ARCHITECTURES:
            timed = students[f"{evaluator}, {name}, ipc {ipc}, {many} students"]
            parts[f"{evaluator}, {name}"] = timed["seconds"] * STUDENTS / many
    return parts


def estimate(dc, students, many=STUDENTS):
    """Hours by part."""
    hours = {}
    for ipc in IPC:
        for pool in POOLS:
            hours[f"distilling, ipc {ipc}, {pool}"] = DISTILLATIONS * distillation_seconds(dc, pool, ipc) / 3600
        sets = len(POOLS) * len(ITERATIONS) * DISTILLATIONS
        for part, seconds in evaluation_seconds(students, ipc, many).items():
            hours[f"evaluating, ipc {ipc}, {part}"] = sets * seconds / 3600
    return hours


def main(argv=None):
    out = Path(os.environ.get("OUT", "."))
    parser = argparse.ArgumentParser(prog="estimate.py", description=__doc__)
    parser.add_argument("--resume", type=Path, default=out, metavar="DIR", help="folder of dc.json and students.json")
    resume = parser.parse_args(argv).resume
    try:
        dc, students = (json.loads((resume / f"{name}.json").read_text()) for name in ("dc", "students"))
        hours = estimate(dc, students)
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is not there: run that script first, or say --resume")
    except KeyError as missing:
        parser.error(f"{missing} has not been measured yet: start dc.py and students.py again with --resume {resume}")
    summary = {"machine": dc["machine"], "hours": hours, "total": sum(hours.values()), "goal": GOAL}
    (out / "estimate.json").write_text(json.dumps(summary, indent=1))
    for part, value in sorted(hours.items(), key=lambda item: -item[1]):
        print(f"{value:8.2f} h  {part}")
    print(f"{summary['total']:8.2f} h  in all on {dc['machine']['device']} (goal: {GOAL:g})")


if __name__ == "__main__":
    main()
