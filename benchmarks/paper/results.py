"""Write RESULTS.md, its figures and scores.csv from one or more stores.

    python benchmarks/paper/results.py benchmarks/paper/store.tar.xz

A store is a folder or a packed file. Everything is computed from the records; the same stores give the same files.
"""

import csv
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import click  # noqa: E402
from answers.compute import compute  # noqa: E402
from answers.figures import effects  # noqa: E402
from answers.page import page  # noqa: E402
from answers.questions import answers  # noqa: E402
from one_screen import as_markdown, draw, matrix_from  # noqa: E402

from harness.errors import DDBenchError  # noqa: E402
from harness.report.comparing.comparison import without_duplicates  # noqa: E402
from harness.report.scores import Scores, read_scores  # noqa: E402
from harness.store.packing import open_store  # noqa: E402

COLUMNS = ("key", "dataset", "ipc", "iterations", "method", "pool", "evaluator", "precision", "architecture",
           "score_on", "seed", "distillation", "student", "accuracy", "collapsed", "status", "set_key",
           "store")  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("stores", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--dataset", help="The one whose scores count, where the stores hold several.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=HERE, help="Folder. [beside this]")
def main(stores, dataset, output):
    """Answer the paper's questions from STORES."""
    records = []
    try:
        read = read_scores(stores, lambda store, record: records.append(record))
    except DDBenchError as error:
        raise click.ClickException(str(error)) from error
    scores, notes = without_duplicates(read.scores)
    collected = Scores(tuple(_of_one(dataset, scores)), (*read.notes, *notes), read.stores)
    failed = list(_failed(stores, {record.key for record in records}))
    for line in (*collected.notes, *failed):
        click.echo(line, err=True)
    try:
        _write(collected, records, failed, output)
    except OSError as error:
        raise click.ClickException(f"cannot write to {output}: {error.strerror}") from None
    click.echo(f"{len(collected.scores)} scores: {output / 'RESULTS.md'}")


def _write(collected, records, failed, output):
    (output / "figures").mkdir(parents=True, exist_ok=True)
    answered, figures = answers(collected), {}
    for answer in answered:
        path = Path("figures") / f"question-{answer.number}.png"
        if answer.findings:
            effects(answer, output / path)
            figures[answer.question] = path
        else:
            (output / path).unlink(missing_ok=True)
    matrix, picture = matrix_from(collected), Path("figures") / "matrix.png"
    if matrix:
        draw(matrix, output / picture)
    else:
        (output / picture).unlink(missing_ok=True)
    summary = as_markdown(matrix, picture) if matrix else ""
    configs = [HERE / f"table{number}.toml" for number in (4, 5)]
    (output / "RESULTS.md").write_text(page(collected, summary, answered, configs, figures, compute(records), failed))
    with (output / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(score, name) for name in COLUMNS] for score in collected.scores)


def _of_one(dataset, scores):
    """The scores on one data set: no arm is to mix them."""
    there = sorted({score.dataset for score in scores})
    if (dataset is None and len(there) > 1) or (dataset and dataset not in there):
        named = ", ".join(there) or "no data set"
        raise click.UsageError(f"there are scores on {named}: name one of them by --dataset")
    return [score for score in scores if dataset in (None, score.dataset)]


def _failed(stores, done):
    """Return lines about the cells that could not be made."""
    for path in stores:
        store = open_store(path, records_only=True)
        for failure in store.failures.all():
            if failure.key not in done:
                yield f"failed, and not made since: {failure.label}: {failure.reason}"


if __name__ == "__main__":
    main()
