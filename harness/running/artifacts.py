"""The artifacts that methods ask for: made ahead where the draws are known, else when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safetensors import safe_open
from torch import Tensor

from harness.compute.parallel import side_by_side
from harness.compute.precision import float32_products
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.registry import Resolved
from harness.plugins.returns import artifact, call_of, requests
from harness.running.cell_tracker import Ledger, saver
from harness.running.unfinished_tensors import PartialFiles
from harness.store.store import Store
from harness.types.artifact import Artifact, ArtifactRequest
from harness.types.method import Method
from harness.types.seeds import Streams


class Artifacts:
    """The artifacts of one trajectory."""

    def __init__(self, source: TrajectorySource, method: Method[Any], ledger: Ledger) -> None:
        self.source, self.method, self.ledger = source, method, ledger
        self._at_hand: dict[str, Artifact] = {}

    def prepare(self, requests: Sequence[ArtifactRequest]) -> None:
        """Make those that are missing, side by side."""
        missing = [one for one in requests if self.ledger.is_missing(self.source.artifact_cell(one))]

        def make(number: int) -> None:
            self._make(missing[number])

        for _ in side_by_side(make, range(len(missing)), self.source.problem.device):
            pass

    def of(self, iteration: int, architecture: str | None) -> list[Artifact]:
        """What the method needs at an iteration for the architecture drawn; made now if it is not there."""
        asked = self.method.needs(iteration, architecture)
        return [self._artifact(request) for request in requests(asked, call_of(self.method, "needs"))]

    def _artifact(self, request: ArtifactRequest) -> Artifact:
        cell = self.source.artifact_cell(request)
        if cell.key not in self._at_hand:
            if self.ledger.is_missing(cell):
                self._make(request)
            resolved = self.source.resolve(request.architecture) if request.architecture else None
            tensors = StoredTensors(self.ledger.store, cell.key)
            self._at_hand[cell.key] = Artifact(tensors, architecture=resolved.make() if resolved else None)
        return self._at_hand[cell.key]

    def _make(self, request: ArtifactRequest) -> None:
        source, store = self.source, self.ledger.store
        cell = source.artifact_cell(request)
        with self.ledger.hold(cell.key, cell.label):
            if not self.ledger.is_missing(cell):
                return
            self.ledger.start(cell)
            resolved = source.resolve(request.architecture) if request.architecture else None
            architecture = resolved.make() if resolved else None
            scratch = PartialFiles(store, cell, self.ledger.reporter.notice)
            with float32_products("fp32"):  # whatever the trajectory that asks for it computes in
                answer = self.method.make_artifact(request, source.problem, architecture, Streams(source.seed), scratch)
            product = artifact(answer, call_of(self.method, "make_artifact"))
            record = {"result": dict(product.scalars)}
            components: list[Resolved[Any]] = [source.method, *([resolved] if resolved else [])]
            self.ledger.commit(cell, record, source.problem, components, {ARTIFACT_FILE: saver(product.tensors)})
            scratch.clear()


ARTIFACT_FILE = "artifact.safetensors"


class StoredTensors(Mapping[str, Tensor]):
    """An artifact's tensors by name, each read when it is asked for: an expert has fifty times a network's weights."""

    def __init__(self, store: Store, key: str) -> None:
        self._file = safe_open(store.file(key, ARTIFACT_FILE), framework="pt")
        self._names = tuple(self._file.keys())  # type: ignore[no-untyped-call]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
