"""The format of the DC code base (VICO-UoE/DatasetCondensation): a list of sets with the last one's accuracies."""

from pathlib import Path
from typing import Any

import torch

from harness.errors import DataError
from harness.types.distilled import DistilledSet
from harness.types.formats.content import Content
from harness.types.formats.format import SetFormat, lost_metadata, refusal_unless_hard
from harness.types.formats.pickled import PICKLED, pair_of, pickled_form, read_pickled
from harness.types.formats.scores import SCORES, format_scores, scores_of
from harness.types.options import Options


class Vico(SetFormat[Options]):
    """A .pt file {"data": [[images, labels], ...], "accs_all_exps": {architecture: [accuracies]}}."""

    suffixes = PICKLED
    several = True

    def recognises(self, path: Path) -> bool:
        """Return whether a dictionary with a list ``data`` was pickled."""
        return path.suffix.lower() in PICKLED and pickled_form(path) == "data"

    def read(self, path: Path, entry: int) -> Content:
        """Read one set, with the accuracies that belong to the last one."""
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

    def refusal(self, distilled: DistilledSet) -> str | None:
        """Refuse labels that are not hard, and a schedule."""
        return refusal_unless_hard(distilled, "the VICO-UoE format holds class indices")

    def write(self, distilled: DistilledSet, path: Path) -> tuple[str, ...]:
        """Write one set that the reference's evaluator reads, with the accuracies in its provenance."""
        images, labels = distilled.training_data()
        pair = [images.detach().float().contiguous(), labels.detach().long().contiguous()]
        # torch.save names the archive after a path, and refuses some names: a file object has none.
        with path.open("wb") as file:
            torch.save({"data": [pair], "accs_all_exps": scores_of(distilled.provenance.get(SCORES))}, file)
        return lost_metadata(distilled)


def _taken(name: str, index: int, sets: int) -> tuple[str, ...]:
    return (f"entry {index} of {sets} in {name}, counted from 0",) if sets > 1 else ()
