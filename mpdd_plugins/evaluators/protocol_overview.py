"""The table of an evaluator's protocols: every constant as its recipe has it, and the source."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from harness import Options, Recipe
from mpdd_plugins.evaluators.decoupled_recipes import OPERATIONS
from mpdd_plugins.evaluators.protocol import TrainingOptions
from mpdd_plugins.evaluators.protocol_tables import EPOCHS, FREPO_MOST, FREPO_STEPS

SOURCES = {
    "v1": "DC, utils.py",
    "quick": "own choice: a third of v1",
    "dsa": "DSA",
    "mtt": "MTT, evaluation",
    "idc": "IDC, train.py",
    "ncfm": "NCFM",
    "sre2l": "SRe2L, relabel_cifar.py",
    "rded": "RDED, validation",
    "dd": "DD, section 3.4",
    "seqmatch": "SeqMatch",
    "frepo": "FRePo, script/eval",
    "frepo-softmax": "FRePo, script/eval; the loss is our choice",
}
AUGMENTATIONS = {
    "dc": "DC's by data set: crop+scale+rotate (mnist), crop+noise (ConvNet with batch norm), else none",
    "dsa": "one of DSA's a batch",
    "idc": "IDC's and CutMix on half of the batches",
    "ncfm": "one of DSA's a batch, and CutMix on half of the batches",
    "dd": "none",
    **{name: f"{operations}, flip where images are mirrored" for name, operations in OPERATIONS.items()},
}
FAMILIES = {"v1": "dc", "quick": "dc", "idc": "idc", "ncfm": "ncfm", "dd": "dd", "sre2l": "sre2l", "rded": "rded"}
"""Families of augmentations; every other protocol has DSA's."""


def protocol_rows(options: type[TrainingOptions], also: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return a row for each protocol of an evaluator: its constants by name, as text.

    Args:
        options: the class of the evaluator's options.
        also: options that are constants of a protocol too, such as ``temperature``.
    """
    names = get_args(options.model_fields["protocol"].annotation)
    return [_row(options(protocol=name), also) for name in names]


def preset_rows(options: type[Options], presets: Sequence[str], source: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a row for each preset of an evaluator whose options are all constants of its protocol."""
    rows = []
    for preset in presets:
        values = options(preset=preset)  # type: ignore[call-arg]
        shown = {name: _text(getattr(values, name)) for name in options.model_fields if name != "preset"}
        constants = {name.replace("_", "-"): text for name, text in shown.items()}
        rows.append({"protocol": f"{preset} v1", **constants, "source": source[preset]})
    return rows


def _row(options: TrainingOptions, also: Sequence[str]) -> dict[str, str]:
    name, recipe = options.protocol, options.protocol_recipe(augmented=False)
    aliases = {key: field.alias or key for key, field in type(options).model_fields.items()}
    own = {aliases[key]: _text(getattr(options, key)) for key in also}
    return {
        "protocol": options.version_name(),
        "length": _length(name, recipe),
        "optimizer": recipe.optimizer + (f", momentum {recipe.momentum:g}" if recipe.optimizer == "sgd" else ""),
        "lr": {"mtt": "the set's", "dd": "the set's", "seqmatch": "the set's"}.get(name, f"{recipe.lr:g}"),
        "schedule": _schedule(options, recipe),
        "weight decay": f"{recipe.weight_decay:g}",
        "batch": _batch(name, recipe),
        "augmentation": AUGMENTATIONS[FAMILIES.get(name, "dsa")],
        **own,
        "source": SOURCES[name],
    }


def _length(name: str, recipe: Recipe) -> str:
    if recipe.steps is not None:
        steps = ", ".join(f"{count} on up to {images}" for images, count in FREPO_STEPS.items())
        return f"steps: {steps}, {FREPO_MOST} on more images"
    plain, augmented = EPOCHS[name]
    epochs = f"{plain} epochs" if plain == augmented else f"{plain} epochs, {augmented} if augmented"
    return {"dd": f"{plain} time the set's steps", "seqmatch": f"{epochs} a step of the set"}.get(name, epochs)


def _schedule(options: TrainingOptions, recipe: Recipe) -> str:
    if options.schedule == "half-cosine":
        return "cosine to half of the rate"
    if recipe.schedule == "milestones":
        return f"x{recipe.factor:g} from epochs {', '.join(map(str, recipe.milestones))} on"
    if recipe.schedule == "cosine":
        warmup = f", {recipe.warmup} steps of warm-up" if recipe.warmup else ""
        return f"cosine to {f'{recipe.last:g} of the rate' if recipe.last else 'zero'}{warmup}"
    return {"step": "x0.1 after half, with fresh momentum", "constant": "constant"}[recipe.schedule]


def _batch(name: str, recipe: Recipe) -> str:
    if name == "rded":
        return "10, 50, 100 at ipc 1, up to 10, more; doubled from 100 classes on"
    return "the set's steps" if name == "dd" else str(recipe.batch)


def _text(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, bool):
        return str(value).lower()
    return "auto" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
