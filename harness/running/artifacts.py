"""Artifacts of methods and evaluators: one code asks for them, makes them side by side, commits and reads them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from safetensors import safe_open
from torch import Tensor

from harness.compute.parallel import side_by_side
from harness.compute.precision import float32_products
from harness.learning.artifacts.real_networks import RealNetwork, train_real_network
from harness.learning.networks.lottery import Resolve
from harness.planning.arms import Arm
from harness.planning.real_networks import real_network_cell
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.registry import Resolved
from harness.plugins.returns import artifact, call_of, requests
from harness.running.cell_tracker import CellTracker, saver
from harness.running.unfinished_tensors import PartialFiles
from harness.store.cells import Cell
from harness.store.records import StoredArtifact
from harness.store.store import Store
from harness.types.artifact import Artifact, ArtifactRequest, Scratch
from harness.types.distilled import DistilledSet
from harness.types.evaluator import Evaluator
from harness.types.method import Method
from harness.types.network import Architecture
from harness.types.problem import Problem
from harness.types.seeds import Streams

ARTIFACT_FILE = "artifact.safetensors"


class Need(NamedTuple):
    """An artifact that a component asks for, and the cell that holds it."""

    request: ArtifactRequest
    cell: Cell


class ArtifactMaker(Protocol):
    """What makes artifacts: the method or evaluator that asks for them, or the harness itself."""

    @property
    def components(self) -> Sequence[Resolved[Any]]:
        """The component itself, for the provenance of what it makes; none if the harness makes it."""
        ...

    @property
    def problem(self) -> Problem:
        """The real data of the problem."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    @property
    def resolve(self) -> Resolve:
        """The function that finds architectures by name."""
        ...

    @property
    def record_fields(self) -> Mapping[str, Any]:
        """The fields that the record of an artifact holds beside its scalars."""
        ...

    @property
    def described(self) -> str:
        """The name of the ``make_artifact`` that is called, for messages."""
        ...

    def make(self, request: ArtifactRequest, architecture: Architecture[Any] | None, scratch: Scratch) -> Artifact:
        """Call the component's ``make_artifact``."""
        ...


@dataclass(frozen=True, eq=False)
class RealNetworks:
    """The networks on the real data of a problem, which the harness trains for whoever asks."""

    problem: Problem
    seed: int
    resolve: Resolve
    components: Sequence[Resolved[Any]] = ()
    record_fields: Mapping[str, Any] = field(default_factory=dict)
    described: str = "a network on the real data"

    def with_cells(self, artifact_requests: Sequence[ArtifactRequest]) -> list[Need]:
        """Return requests for networks on the real data together with their cells."""
        return [
            Need(request, real_network_cell(request, self.problem, self.seed, self.resolve))
            for request in artifact_requests
            if isinstance(request, RealNetwork)
        ]

    def make(self, request: ArtifactRequest, architecture: Architecture[Any] | None, scratch: Scratch) -> Artifact:
        """Train a network from the streams that all distillations share."""
        assert isinstance(request, RealNetwork), "other artifacts are made by the component that asks for them"
        assert architecture is not None, "a network on the real data has an architecture"
        return train_real_network(request, self.problem, architecture, Streams(self.seed), scratch)


@dataclass(frozen=True, eq=False)
class MethodArtifacts:
    """The artifacts that a method asks for: shared by all distillations of its source."""

    source: TrajectorySource
    method: Method[Any]

    @property
    def components(self) -> Sequence[Resolved[Any]]:
        """The method that asks for the artifacts."""
        return [self.source.method]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.source.seed

    @property
    def problem(self) -> Problem:
        """The real data that the method distils."""
        return self.source.problem

    @property
    def resolve(self) -> Resolve:
        """The function that finds architectures by name."""
        return self.source.resolve

    @property
    def record_fields(self) -> Mapping[str, Any]:
        """Always empty: an artifact of a method belongs to no distilled set."""
        return {}

    @property
    def described(self) -> str:
        """The name of the method's ``make_artifact``, for messages."""
        return call_of(self.method, "make_artifact")

    def needs(self, iteration: int, architecture: str | None) -> list[Need]:
        """Return the artifacts that a step asks for if the pool draws ``architecture`` for it."""
        artifact_requests = requests(self.method.needs(iteration, architecture), call_of(self.method, "needs"))
        return self.with_cells(artifact_requests)

    def with_cells(self, artifact_requests: Sequence[ArtifactRequest]) -> list[Need]:
        """Return requests of this method together with their cells."""
        return [Need(request, self.source.artifact_cell(request)) for request in artifact_requests]

    def make(self, request: ArtifactRequest, architecture: Architecture[Any] | None, scratch: Scratch) -> Artifact:
        """Make an artifact from the streams that all distillations share."""
        return self.method.make_artifact(request, self.problem, architecture, Streams(self.source.seed), scratch)


@dataclass(frozen=True, eq=False)
class EvaluatorArtifacts:
    """The artifacts that an evaluator asks for.

    Each belongs to one student of one distilled set, except for networks on the real data.
    """

    arm: Arm
    distillation: int
    evaluator: Evaluator[Any]
    distilled: DistilledSet

    @property
    def components(self) -> Sequence[Resolved[Any]]:
        """The evaluator that asks for the artifacts."""
        return [self.arm.evaluator]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.arm.source.seed

    @property
    def problem(self) -> Problem:
        """The real data that students are scored on."""
        return self.arm.source.problem

    @property
    def resolve(self) -> Resolve:
        """The function that finds architectures by name."""
        return self.arm.resolve

    @property
    def record_fields(self) -> Mapping[str, Any]:
        """The distilled set that the artifact belongs to."""
        return {"set": self.arm.set_cell(self.distillation).key}

    @property
    def described(self) -> str:
        """The name of the evaluator's ``make_artifact``, for messages."""
        return call_of(self.evaluator, "make_artifact")

    def needs(self, students: Sequence[int]) -> dict[int, Need]:
        """Return the artifacts that these students need, by student; students that need none are left out."""
        needs: dict[int, Need] = {}
        for student in students:
            request, cell = self.arm.artifact_request(student), self.arm.artifact_cell(self.distillation, student)
            if request and cell:
                needs[student] = Need(request, cell)
        return needs

    def make(self, request: ArtifactRequest, architecture: Architecture[Any] | None, scratch: Scratch) -> Artifact:
        """Make an artifact from the streams of its distillation; an evaluator's is short, and saves no parts."""
        streams = Streams(self.arm.source.seed, self.distillation)
        return self.evaluator.make_artifact(request, self.distilled, self.problem, architecture, streams)


class Artifacts:
    """Makes the artifacts of one component that the store lacks, and reads them from the store.

    Networks on the real data that the component asks for are trained by the harness.
    """

    def __init__(self, maker: ArtifactMaker, tracker: CellTracker) -> None:
        self.maker, self.tracker = maker, tracker
        self._real_networks = RealNetworks(maker.problem, maker.seed, maker.resolve)
        self._loaded: dict[str, Artifact] = {}

    def prepare(self, needs: Sequence[Need]) -> None:
        """Make the artifacts that are missing, side by side."""
        # By key: all students of an evaluator may ask for the same network on the real data.
        once = {need.cell.key: need for need in needs}
        missing = [need for need in once.values() if self.tracker.is_missing(need.cell)]

        def make(number: int) -> None:
            self._make(missing[number])

        for _ in side_by_side(make, range(len(missing)), self.maker.problem.device):
            pass

    def get(self, need: Need) -> Artifact:
        """Return an artifact; it is made now if no run has made it, as those of adaptive pools are known no sooner."""
        cell = need.cell
        if cell.key not in self._loaded:
            if self.tracker.is_missing(cell):
                self._make(need)
            architecture = self._architecture(need.request)
            tensors = StoredTensors(self.tracker.store, cell.key)
            self._loaded[cell.key] = Artifact(tensors, architecture=architecture.make() if architecture else None)
        return self._loaded[cell.key]

    def _make(self, need: Need) -> None:
        cell, shared = need.cell, isinstance(need.request, RealNetwork)
        maker: ArtifactMaker = self._real_networks if shared else self.maker
        # Several runs and arms may ask for the same artifact, whatever lease they hold for their own work.
        with self.tracker.hold(cell.key, cell.label):
            if not self.tracker.is_missing(cell):
                return
            self.tracker.start(cell)
            resolved = self._architecture(need.request)
            architecture = resolved.make() if resolved else None
            scratch = PartialFiles(self.tracker.store, cell, self.tracker.reporter.notice)
            with float32_products("fp32"):  # the trajectory that asks may be in the midst of a step in TF32
                answer = maker.make(need.request, architecture, scratch)
            product = artifact(answer, maker.described)
            components: list[Resolved[Any]] = [*maker.components, *([resolved] if resolved else [])]
            fields = {"result": dict(product.scalars), **maker.record_fields}
            record = self.tracker.record(StoredArtifact, cell, maker.problem, components, **fields)
            self.tracker.commit(cell, record, {ARTIFACT_FILE: saver(product.tensors)})
            scratch.clear()

    def _architecture(self, request: ArtifactRequest) -> Resolved[Architecture[Any]] | None:
        return self.maker.resolve(request.architecture) if request.architecture else None


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
