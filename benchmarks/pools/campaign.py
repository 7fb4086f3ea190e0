"""Work off campaign.toml in its order: python benchmarks/pools/campaign.py STORE [--pack FILE]

What the store holds is not made again, so that any number of runs go on with it, one after the other or at once. With
--pack nothing is computed: sets, students and choices of the store are written to one compressed file, without what
can be made again or is of no use elsewhere (teachers, logs of runs).
"""

import argparse
import json
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness

CONFIG = Path(__file__).parent / "campaign.toml"
LEFT_OUT = "artifact"


def requests(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Options of one `harness.run` after the other.

    The distillations of a stage grow in step over its methods and pools: wherever the work is stopped, all arms have
    as many, and each difference between pools is made of pairs.
    """
    for stage in config["stage"]:
        for distillations in range(1, stage["distillations"] + 1):
            for method, iterations in stage["iterations"].items():
                counts = {"method": method, "iterations": iterations, "distillations": distillations}
                yield {**config["common"], **stage, **counts}


def pack(store: Path, file: Path) -> int:
    """Write the cells of a store that cannot be made again in minutes into a tar file; how many they are."""
    cells = sorted(path.parent for path in store.glob("cells/??/*-*/record.json"))
    chosen = [cell for cell in cells if json.loads((cell / "record.json").read_text())["kind"] != LEFT_OUT]
    with tarfile.open(file, "w:xz", preset=9) as archive:
        for path in [store / "store.json", *(path for cell in chosen for path in sorted(cell.iterdir()))]:
            archive.add(path, path.relative_to(store), filter=_anonymous)
    return len(chosen)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same content gives the same file, whoever packs it and when."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def main() -> None:
    """Compute, or pack what was computed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--pack", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.pack:
        print(f"{pack(arguments.store, arguments.pack)} cells in {arguments.pack}")
        return
    for options in requests(tomllib.loads(CONFIG.read_text())):
        result = harness.run(store=arguments.store, **options)
        states = [cell["state"] for cell in result.cells]
        print(
            f"{options['method']} through {' and '.join(options['pool'])}, {options['distillations']} distillations, "
            f"{len(options['architecture'])} architectures: {len(states)} cells, {len(result.failed)} failed",
            flush=True,
        )


if __name__ == "__main__":
    main()
