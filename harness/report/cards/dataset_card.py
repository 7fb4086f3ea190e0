"""The card of a distilled set: a README with the front matter of a data set on the Hugging Face hub."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.report.cards.evaluations import Evaluation, evaluations_in
from harness.report.cards.public_facts import PATH
from harness.report.tables.wording import percent, plus_minus
from harness.types.distilled import DistilledSet
from harness.types.formats.content import in_one_line
from harness.types.plurals import counted

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
"""Names that the hub has for numbers of images below a limit."""
CARD = "README.md"
"""The name of a card's file, by which the hub shows it."""
UNKNOWN = "unknown"


def dataset_card(
    distilled: DistilledSet, where: str, *, licence: str | None, picture: str | None = None, rounded: bool = False
) -> str:
    """Return the card of a set as Markdown.

    Args:
        distilled: the set, with a provenance that may be shared.
        where: what ``ddbench eval`` gets to evaluate it, ``hf:jane/dm-digits`` or a folder.
        licence: identifier of the source data's licence; None if it is not known.
        picture: name of the picture beside the card; None if there is none.
        rounded: whether the file holds rounded pixels, on which accuracies differ from the stated ones.
    """
    facts, rows = distilled.provenance, evaluations_in(distilled.provenance)
    title = _title(distilled)
    parts = [
        _front_matter(distilled, title, licence),
        f"# {title.replace('<', '&lt;')}",  # it may come from anybody, and HTML is Markdown too
        "A distilled data set: few learned images on which networks are trained in place of the real ones. Made and "
        "measured with `ddbench`.",
        *([f"![The distilled images, a row for each class]({picture})"] if picture else []),
        "## What it is",
        _table(("", ""), _facts(distilled, licence)),
        "## How good it is",
        *_accuracy(rows, facts),
        "## Evaluate it",
        *_commands(rows, where, facts, rounded),
        "## Use it",
        _usage(where),
    ]
    return "\n\n".join(parts) + "\n"


def _title(distilled: DistilledSet) -> str:
    facts = distilled.provenance
    method, dataset = facts.get("method"), facts.get("dataset")
    named = [str(part) for part in (method, f"on {dataset}" if dataset else None) if part]
    per_class = len(distilled.images) // len(distilled.classes)
    size = f"{per_class} per class" if per_class else counted(len(distilled.images), "image")
    return f"{in_one_line(' '.join(named)) or 'A distilled set'}, {size}"


def _front_matter(distilled: DistilledSet, title: str, licence: str | None) -> str:
    """Return the YAML in front of the card; each text is quoted as JSON, which YAML reads as it is."""
    images = len(distilled.images)
    size = next((name for limit, name in _SIZES.items() if images < limit), "n>1M")
    lines = [
        f"license: {json.dumps(licence or UNKNOWN)}",
        f"pretty_name: {json.dumps(title, ensure_ascii=False)}",
        "task_categories:",
        "- image-classification",
        "size_categories:",
        f"- {json.dumps(size)}",
        "tags:",
        "- dataset-distillation",
        "- ddbench",
        # The images are tensors in one file, which the hub's viewer would take for something else.
        "viewer: false",
    ]
    return "\n".join(["---", *lines, "---"])


def _facts(distilled: DistilledSet, licence: str | None) -> Iterator[tuple[str, str]]:
    """Yield what is known of the set: names and values."""
    facts, encoding = distilled.provenance, distilled.encoding
    images, _ = distilled.training_data()
    yield "source data", _code(facts.get("dataset"))
    yield "licence of the source data", licence or f"{UNKNOWN} to ddbench: see its publisher"
    yield (
        "classes",
        f"{len(distilled.classes)}: {', '.join(map(_code, distilled.classes[:20]))}"
        + (", ..." if len(distilled.classes) > 20 else ""),
    )
    for name, key in (("images per class", "ipc"), ("iterations", "iterations"), ("seed", "seed")):
        if facts.get(key) is not None:
            yield name, _code(facts[key])
    yield "method", _code(facts.get("method"))
    for name, key in (("options of the method", "method_options"), ("its settings by data set", "settings")):
        if isinstance(facts.get(key), Mapping) and facts[key]:
            yield name, _pairs(facts[key])
    yield "pool", _code(facts.get("pool"))
    if isinstance(facts.get("draws"), Mapping) and facts["draws"]:
        yield "networks drawn", _pairs(facts["draws"])
    if facts.get("training_images") is not None:
        without = ", without a validation split" if facts.get("hold_out") else ""
        yield "distilled from", f"{_code(facts['training_images'])} training images{without}"
    if encoding is None:
        yield "parametrisation", "plain images"
    else:
        options = _pairs(encoding.parametrisation.options.as_json())
        yield "parametrisation", f"{_code(encoding.name)} of {_code(encoding.provider)}: {options or 'no options'}"
    stored = f"{'x'.join(map(str, distilled.images.shape))} stored, {counted(len(images), 'training image')}"
    yield "images", f"{stored} of {'x'.join(map(str, images.shape[1:]))}"
    yield "storage", f"{distilled.storage_bits:,} bits ({distilled.storage_floats:,} numbers of 32 bits)"
    yield "labels", str(distilled.label_kind)
    if distilled.step_size is not None:
        yield "learned step size", f"{distilled.step_size:g}"
    if distilled.schedule is not None:
        yield "schedule", counted(len(distilled.schedule.steps), "step")
    yield "preprocessing", f"{_code(distilled.preprocessing.name)}; its tensors are in the file"
    for name in ("status", "precision", "distillation", "finished"):
        if facts.get(name) is not None:
            yield name, _code(facts[name])
    for name, key in (("made on", "compute"), ("made with", "versions")):
        if isinstance(facts.get(key), Mapping):
            yield name, _pairs(facts[key])
    for name, key in (("key of the set", "cell"), ("checksum of its record", "record")):
        if facts.get(key):
            yield name, _code(facts[key])


def _accuracy(rows: Sequence[Evaluation], facts: Mapping[str, Any]) -> Iterator[str]:
    if not rows:
        yield "It has not been evaluated with ddbench yet."
        return
    heads = ("evaluator", "protocol", "architecture", "accuracy", "± students", "± distillations", "students", "device")
    yield _table(heads, (
        (
            _code(row.evaluator), _code(row.protocol) + (" ◊" if row.real_data else ""), _code(row.architecture),
            percent(row.mean), plus_minus(row.std_students), _distillations(row), str(len(row.accuracies)),
            _code(row.device),
        )
        for row in rows
    ))  # fmt: skip
    yield (
        "Accuracy on test in percent: the mean of the students on this set, the standard deviation between them, and "
        "that between the means of several distillations, of which this set is one (ddof 1)."
        + (" ◊: the evaluator uses real training images beside the set." if any(row.real_data for row in rows) else "")
    )
    status = facts.get("status")
    if status in ("diverged", "blown up"):
        yield f"The distillation is marked as {status}."
    exact = [
        {"evaluator": row.evaluator, "architecture": row.architecture, "accuracies": row.accuracies} for row in rows
    ]
    yield "Each student's accuracy, a fraction:"
    yield f"```json\n{json.dumps(exact, indent=1)}\n```"


def _distillations(row: Evaluation) -> str:
    spread = plus_minus(row.std_distillations)
    return f"{spread} of {len(row.set_means)}" if spread else "–"


def _commands(rows: Sequence[Evaluation], where: str, facts: Mapping[str, Any], rounded: bool) -> Iterator[str]:
    """Yield the commands that repeat the accuracies, and what is to be known of them."""
    dataset = facts.get("dataset")
    options = _merged(rows) or [["--dataset", dataset if isinstance(dataset, str) else "NAME"]]
    lines = [shlex.join(["ddbench", "eval", where, *words]) for words in options]
    package = "'ddbench[hub]'" if where.startswith("hf:") else "ddbench"
    yield f"```sh\npip install {package}\n" + "\n".join(map(in_one_line, lines)) + "\n```"
    if any(PATH in line for line in lines):
        yield f"`{PATH}` stands for the place of the images on your machine."
    if rounded:
        yield "The pixels here are rounded to 8 bits, so that accuracies differ a little from the stated ones."
    elif rows and all(row.repeatable for row in rows):
        yield (
            "Each gives the accuracies above: bit by bit on a machine of the same kind with the same versions, and up "
            "to rounding elsewhere."
        )
    elif rows:
        yield (
            "The accuracies above come from students with other random numbers, those of another distillation or of "
            "another code: expect them within the spread between students."
        )


def _merged(rows: Sequence[Evaluation]) -> list[list[str]]:
    """Return the options of a command for each evaluator, with all architectures that have the others in common."""
    architectures: dict[tuple[tuple[str, str], ...], list[tuple[str, str]]] = {}
    for row in rows:
        pairs = row.option_pairs
        shared = tuple(pair for pair in pairs if pair[0] != "--architecture")
        if pairs:
            architectures.setdefault(shared, []).extend(pair for pair in pairs if pair not in shared)
    return [[word for pair in (*shared, *own) for word in pair] for shared, own in architectures.items()]


def _usage(where: str) -> str:
    if not where.startswith("hf:"):
        return f"```python\nimport harness\n\nimages, labels = harness.load_distilled({where!r})\n```"
    repo = where.removeprefix("hf:")
    return (
        "```python\nimport harness\nfrom huggingface_hub import hf_hub_download\n\n"
        f'file = hf_hub_download({repo!r}, "set.safetensors", repo_type="dataset")\n'
        "images, labels = harness.load_distilled(file)\n```\n\n"
        "Images are network inputs, preprocessed already; test images need the same preprocessing, "
        "`harness.load_distilled(file).preprocessing`."
    )


def _table(heads: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{_code(key)} {_code(value)}" for key, value in values.items())


def _code(value: object) -> str:
    """Return a value that may come from anybody as code in a table: in one line, and without Markdown of its own."""
    if value is None:
        return "–"
    text = in_one_line(value if isinstance(value, str) else json.dumps(value)).replace("`", "'")
    return f"`{text[:300]}`".replace("|", "\\|")
