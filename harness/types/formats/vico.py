"""The format of the DC code base (VICO-UoE/DatasetCondensation): a list of sets with the last one's accuracies."""

from pathlib import Path
from typing import Any

import torch

from harness.errors import DataError
from harness.types.distilled import DistilledSet
from harness.types.formats.content import Content
from harness.types.formats.format import Format, all_but_data, check_hard
from harness.types.formats.pickled import pair_of, read_pickled
from harness.types.formats.scores import SCORES, format_scores, scores_of
from harness.types.options import Options


def read(path: Path, _options: Options, entry: int) -> Content:
    """Read one set of a ``.pt`` file ``{"data": [[images, labels], ...], "accs_all_exps": {architecture: [...]}}``."""
    content = read_pickled(path)
    sets = content.get("data") if isinstance(content, dict) else None
    if not isinstance(sets, list) or not sets:
        raise DataError(f"{path.name} is not of the VICO-UoE format: it has no list 'data'")
    if not -len(sets) <= entry < len(sets):
        raise DataError(f"{path.name} has {len(sets)} sets: --entry goes from 0 to {len(sets) - 1}")
    index = entry % len(sets)
    where = f"entry {index} of {path.name}"
    images, labels = pair_of(sets[index], where)
    provenance: dict[str, Any] = {"file": path.name, "entry": index, "entries": len(sets)}
    # The file's accuracies belong to the set that was written last.
    if index == len(sets) - 1:
        provenance[SCORES] = scores_of(content.get("accs_all_exps"))
    notes = (*_taken(path.name, index, len(sets)), *format_scores(provenance))
    return Content(where, images, labels, provenance=provenance, notes=notes)


def write(distilled: DistilledSet, path: Path) -> tuple[str, ...]:
    """Write one set that the reference's evaluator reads, with the accuracies in its provenance.

    Raises:
        DataError: its labels are not hard, or it has a schedule.
    """
    check_hard(distilled, "the VICO-UoE format holds class indices")
    images, labels = distilled.training_data()
    pair = [images.detach().float().contiguous(), labels.detach().long().contiguous()]
    torch.save({"data": [pair], "accs_all_exps": scores_of(distilled.provenance.get(SCORES))}, path)
    return all_but_data(distilled)


def _taken(name: str, index: int, sets: int) -> tuple[str, ...]:
    return (f"entry {index} of {sets} in {name}, counted from 0",) if sets > 1 else ()


FORMAT = Format("vico", (".pt", ".pth"), "VICO-UoE's .pt: data, a list of [images, labels]", read, write, several=True)
