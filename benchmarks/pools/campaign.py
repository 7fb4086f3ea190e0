"""Work off the stages of a campaign in their order: python benchmarks/pools/campaign.py STORE [--config CONFIG]

What the store holds is not made again, so that any number of runs go on with it, one after the other or at once.
"""

import argparse
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness

CONFIG = Path(__file__).parent / "campaign.toml"


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


def main() -> None:
    """Compute what the store does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG, help="the campaign [campaign.toml beside this file]")
    arguments = parser.parse_args()
    for options in requests(tomllib.loads(arguments.config.read_text())):
        result = harness.run(store=arguments.store, **options)
        states = [cell["state"] for cell in result.cells]
        print(
            f"{options['method']} through {' and '.join(options['pool'])}, {options['distillations']} distillations, "
            f"{len(options['architecture'])} architectures: {len(states)} cells, {len(result.failed)} failed",
            flush=True,
        )


if __name__ == "__main__":
    main()
