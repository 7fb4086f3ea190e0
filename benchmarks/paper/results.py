"""Write RESULTS.md, its figures and scores.csv from one or more stores.

    python benchmarks/paper/results.py benchmarks/paper/store

Everything is computed from the records; the same stores give the same files.
"""

import csv
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import click  # noqa: E402
from answers.compute import compute  # noqa: E402
from answers.figures import effects  # noqa: E402
from answers.page import page  # noqa: E402
from answers.questions import answers  # noqa: E402

from harness.report.comparison import once  # noqa: E402
from harness.report.scores import Scores, read_scores  # noqa: E402
from harness.types.errors import DDBenchError  # noqa: E402

COLUMNS = ("key", "ipc", "iterations", "method", "pool", "evaluator", "precision", "architecture", "score_on", "seed",
           "distillation", "student", "accuracy", "collapsed", "status", "set_key", "store")  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("stores", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=HERE, help="Folder. [beside this]")
def main(stores, output):
    """Answer the paper's questions from STORES."""
    records = []
    try:
        found = read_scores(stores, lambda store, record: records.append(record))
    except DDBenchError as error:
        raise click.ClickException(str(error)) from error
    scores, notes = once(found.scores)
    found = Scores(tuple(scores), (*found.notes, *notes), found.stores)
    (output / "figures").mkdir(parents=True, exist_ok=True)
    answered, figures = answers(found), {}
    for answer in answered:
        if answer.findings:
            path = Path("figures") / f"question-{answer.number}.png"
            effects(answer, output / path)
            figures[answer.question] = path
    configs = [HERE / f"table{number}.toml" for number in (4, 5)]
    (output / "RESULTS.md").write_text(page(found, answered, configs, figures, compute(records)))
    with (output / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(score, name) for name in COLUMNS] for score in found.scores)
    click.echo(f"{len(found.scores)} scores: {output / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
