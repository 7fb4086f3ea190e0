"""Trajectories as sources of distilled sets: a method learns them, and all that decides their numbers is their key."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from harness.learning.artifacts.real_networks import RealNetwork
from harness.learning.networks.lottery import Lottery, Resolve, mixture
from harness.learning.networks.pool_networks import start_of
from harness.learning.networks.probes import Panel
from harness.learning.pixel_method import PixelOptions
from harness.planning.real_networks import real_network_cell
from harness.planning.set_sources import machinery_digests, starts_pretrained
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of, plain_json, requests, returned, text
from harness.store.cells import Cell, canonical_json, key_of
from harness.store.run_files import PlanScope
from harness.types.artifact import ArtifactRequest
from harness.types.data.labels import LabelKind
from harness.types.method import Method, Task, declared_kind
from harness.types.names import Name, name_or_text
from harness.types.network import Architecture
from harness.types.parametrisation import Parametrisation
from harness.types.plurals import counted, plural
from harness.types.pool import Pool
from harness.types.problem import Problem
from harness.types.seeds import Streams


@dataclass(frozen=True, eq=False)
class TrajectorySource:
    """A method on a problem through a pool; each distillation index is a trajectory of its own.

    Attributes:
        pool: None for a method that draws no network.
        ipc: None for a method that does not ask.
        total: the last iteration asked for; it decides numbers only where the method says so.
        panel: the students by which the pool's probes along these trajectories are made; None without probes.
        search: the same trajectories without the validation split, whose distributions, found by probes, these replay;
            None if nothing is replayed.
    """

    problem: Problem
    method: Resolved[Method[Any]]
    pool: Resolved[Pool[Any]] | None
    ipc: int | None
    seed: int
    precision: str
    total: int
    resolve: Resolve
    panel: Panel | None = None
    search: "TrajectorySource | None" = None
    # Every student's cell asks for its set's, whose identity takes thousands of draws: each is found once.
    _likely: dict[int, list[tuple[int, ArtifactRequest]]] = field(default_factory=dict)
    _sets: dict[tuple[int, int], Cell] = field(default_factory=dict)

    def with_probes(self, panel: Panel) -> "TrajectorySource":
        """Return these trajectories with probes by a panel."""
        return replace(self, panel=panel, _likely={}, _sets={})

    def on(self, problem: Problem) -> "TrajectorySource":
        """Return such trajectories on another problem."""
        return replace(self, problem=problem, _likely={}, _sets={})

    def replaying(self, search: "TrajectorySource") -> "TrajectorySource":
        """Return such trajectories through the distributions that others have found."""
        return replace(self, search=search, _likely={}, _sets={})

    @property
    def status(self) -> str:
        """The state of a set that the store does not hold: it is missing, for it can be made."""
        return "missing"

    @cached_property
    def storage_floats(self) -> int | None:
        """The storage of a set by a parametrisation; otherwise None: a method may pack its sets in a way of its own."""
        return self.first.distilled().storage_floats if self.parametrisation else None

    @property
    def names(self) -> Mapping[str, Name]:
        """The names of the data set, the method and, if it draws networks, the pool by kind."""
        pool = {"pool": self.pool.name} if self.pool else {}
        return {"dataset": name_or_text(self.problem.name), "method": self.method.name, **pool}

    @property
    def scope(self) -> PlanScope:
        """The part of a plan that these trajectories are."""
        return PlanScope(
            dataset=self.problem.name,
            method=str(self.method),
            pool=str(self.pool) if self.pool else None,
            ipc=self.ipc,
        )

    def describe(self, iterations: int | None) -> dict[str, Any]:
        """Return the fields of a row; no iterations if the method chooses its set in one step."""
        return {
            "dataset": self.problem.name,
            "ipc": self.ipc,
            "iterations": iterations if self.method.cls.iterates else None,
            "method": str(self.method),
            "pool": str(self.pool) if self.pool else None,
        }

    @property
    def images(self) -> int:
        """Number of images of a set, as they are stored."""
        return self.ipc * len(self.problem.classes) if self.ipc else len(self.problem.train)

    @property
    def training_images(self) -> int:
        """Number of the problem's training images."""
        return len(self.problem.train)

    def new_method(self, distillation: int) -> Method[Any]:
        """Return a method at the start of a distillation."""
        streams = Streams(self.seed, distillation)
        return self.method.make(Task(self.problem, self.ipc or 0, streams, self.total, self.precision))

    @cached_property
    def first(self) -> Method[Any]:
        """The method at the start of the first distillation, for questions whose answers hold for all."""
        return self.new_method(0)

    @cached_property
    def label_kind(self) -> LabelKind | None:
        """The kind of labels that the method declares; None if it declares none."""
        return declared_kind(self.first)

    @property
    def has_schedule(self) -> bool:
        """Whether the method declares that its sets have a schedule."""
        return bool(self.first.has_schedule)

    @property
    def probe_note(self) -> str | None:
        """A line on what the pool's probes are scored on and what is made of them; None without probes."""
        if self.search:
            split = f"{self.pool}: probes are scored on {self.search.problem.hold_out}, which its search leaves out"
            return f"{split}; the distributions that it finds are replayed on the whole training set{self._few_probes}"
        if self.panel is None:
            return None
        scored = f"{self.pool}: probes are scored on {self.panel.problem.hold_out}"
        same = self.problem.score_on == "validation"
        return f"{scored}{', and so are the students: their scores are optimistic' if same else ''}{self._few_probes}"

    @property
    def _few_probes(self) -> str:
        """What to do if fewer than two probes are due, so that no gain is seen; empty if there are enough."""
        pool = self.pool.make() if self.pool else None
        due = sum(pool.probes_at(iteration) for iteration in range(self.total)) if pool else 0
        if due > 1:
            return ""
        few = f"{'no probe' if due == 0 else 'a single probe'} in {counted(self.total, 'iteration')} shows no gain"
        return f"; {few}: give more --iterations, or have the pool probe earlier and more often"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The values that the method's options left to ``auto`` take."""
        what = call_of(self.first, "settings")
        settings: dict[str, Any] = returned(plain_json(self.first.settings(), what), dict, what)
        return settings

    @cached_property
    def parametrisation(self) -> Resolved[Parametrisation[Any]] | None:
        """The parametrisation of the sets; None for plain images."""
        # Those of the method and not of its name: a method may resolve ``as=auto`` by the data set.
        options = self.first.options
        return options.parametrisation() if isinstance(options, PixelOptions) else None

    @cached_property
    def main(self) -> Name | None:
        """The pool's main architecture; None if it has none."""
        pool = self.pool.make() if self.pool else None
        main = pool.main if pool else None
        return None if main is None else self.resolve(text(main, f"{type(pool).__name__}: main")).name

    @property
    def pool_refusal(self) -> str | None:
        """Why the method cannot use its pool, whichever network is drawn, as a phrase; None if it can."""
        pool = self.pool.make() if self.pool else None
        if pool is None:
            return None
        if pool.watches_gradients and self.first.watch_images() is None:
            return "it measures no gradient of the images, which this pool adapts by"
        if pool.probe is not None and not self.method.cls.iterates:
            return "it has no set in the making, which this pool would probe"
        if pool.together > 1 and not self.method.cls.draws_together:
            return f"it takes one network at a time, and this pool draws {pool.together} together"
        weighs = type(pool).starts_from is not Pool.starts_from or type(pool).prepare is not Pool.prepare
        if weighs and returned(self.first.loads_weights, bool, call_of(self.first, "loads_weights")):
            return "it loads weights of its own into its networks, in place of those that this pool gives them"
        if self.method.cls.pool_refusal is Method.pool_refusal:
            return None
        reason = self.first.pool_refusal([str(architecture) for architecture in self.drawable()])
        return None if reason is None else text(reason, call_of(self.first, "pool_refusal"), longest=500)

    def named(self, architecture: Resolved[Any]) -> str:
        """Return the name of a drawable architecture, and how to choose others if the pool adds it by itself."""
        options = self.pool.options if self.pool else None
        is_typed = options is None or "others" not in options.fields_by_name() or "others" in options.changed()
        if is_typed or self.main == architecture.name:
            return str(architecture)
        return f"{architecture}, which the pool adds unless others=... says what to draw,"

    def trajectory(self, distillation: int) -> dict[str, Any]:
        """Return all that decides the numbers of a trajectory."""
        settings = self.settings
        return {
            "problem": self.problem.fingerprint,
            "augmentations": dict(self.problem.augmentations),
            "method": self.method.identity(),
            "pool": self.pool.identity() if self.pool else None,
            "ipc": self.ipc,
            "seed": self.seed,
            "distillation": distillation,
            "precision": self.precision,
            "total": self.total if self.method.cls.uses_total else None,
            # Absent for plain images, whose cells keep their keys. The method's options name it; its version and its
            # provider decide numbers, too.
            **({"parametrisation": self.parametrisation.identity()} if self.parametrisation else {}),
            # Absent if empty: methods without settings keep the keys that they had before there were any.
            **({"settings": settings} if settings else {}),
            # Absent for pools that ask for no probes, for the same reason.
            **({"probes": self.panel.identity()} if self.panel else {}),
            **({"search": self.search.trajectory_key(distillation)} if self.search else {}),
        }

    def trajectory_key(self, distillation: int) -> str:
        """Return the key of a trajectory, whatever its length."""
        return key_of(self.trajectory(distillation))

    def set_cell(self, distillation: int, iterations: int | None) -> Cell:
        """Return the cell of the set after exactly ``iterations`` updates."""
        assert iterations is not None, "a trajectory's sets have a place on it"
        at = (distillation, iterations)
        if at not in self._sets:
            self._sets[at] = self._set_cell(*at)
        return self._sets[at]

    def _set_cell(self, distillation: int, iterations: int) -> Cell:
        drawable = self.architectures_until(iterations)
        artifacts = [self.artifact_cell(request) for request in self.needs(distillation, iterations)]
        identity = {
            "trajectory": self.trajectory(distillation),
            "architectures": [architecture.identity() for architecture in drawable],
            "iterations": iterations,
            # One digest in place of their keys: a set may need hundreds of experts.
            **({"artifacts": key_of({"cells": [cell.key for cell in artifacts]})} if artifacts else {}),
            # The key of a cell, by which whoever copies this set knows that it needs the other.
            **({"search_set": self.search.set_cell(distillation, iterations).key} if self.search else {}),
        }
        through = f" through {self.pool}" if self.pool else ""
        size = f", ipc {self.ipc}" if self.ipc else ""
        length = f", {iterations} {plural(iterations, 'iteration')}" if self.method.cls.iterates else ""
        length += " with probes" if self.panel else " by the probes of the split" if self.search else ""
        label = f"{self.method}{through} on {self._images_label}{size}, #{distillation}{length}"
        components = [*self.components, *drawable]
        digests = dict(component.code for component in components)
        return Cell("distilled", identity, label, {**digests, **machinery_digests()})

    @property
    def components(self) -> list[Resolved[Any]]:
        """The method, its parametrisation, its pool and what makes its probes, as far as there are any."""
        own = [component for component in (self.method, self.parametrisation, self.pool) if component]
        panel = self.panel or (self.search.panel if self.search else None)
        return [*own, *(panel.components if panel else [])]

    @property
    def _images_label(self) -> str:
        """The training images, as the labels of cells name them."""
        return f"{self.problem.name}{' without validation' if self.problem.hold_out else ''}"

    def needs(self, distillation: int, iterations: int) -> list[ArtifactRequest]:
        """Return the artifacts of the first ``iterations`` iterations, in order of their first use, each once.

        Empty if the pool adapts: then no draw is known ahead, and they are made when they are asked for.
        """
        return [] if self.adapts else self.likely_needs(distillation, iterations)

    def likely_needs(self, distillation: int, iterations: int) -> list[ArtifactRequest]:
        """Return what `needs` does; if the pool adapts, a guess: what would be asked for if it observed nothing."""
        if distillation not in self._likely:
            self._likely[distillation] = list(self._first_uses(distillation))
        return [request for iteration, request in self._likely[distillation] if iteration < iterations]

    @cached_property
    def adapts(self) -> bool:
        """Whether the pool's draws depend on what it observes, so that none is known ahead."""
        return bool(self.pool and self.pool.make().adapts)

    def _first_uses(self, distillation: int) -> Iterator[tuple[int, ArtifactRequest]]:
        """Yield each artifact of the whole trajectory with the iteration that asks for it first."""
        method = self.new_method(distillation)
        pool = self.pool.make() if self.pool else None
        asks = type(method).needs is not Method.needs or (pool and type(pool).starts_from is not Pool.starts_from)
        # Most need nothing: to ask them a million times would take longer than all the rest of planning.
        if not asks:
            return
        lottery = Lottery(pool, self.resolve, Streams(self.seed, distillation)) if pool else None
        seen: set[tuple[str, int, str | None, str]] = set()
        for iteration in range(self.total):
            for request in self._needs_at(method, iteration, lottery):
                # Networks on the real data that a method asks for may differ in recipe or snapshots alone.
                own = canonical_json(request.identity) if isinstance(request, RealNetwork) else ""
                name = (request.kind, request.index, request.architecture, own)
                if name not in seen:
                    seen.add(name)
                    yield iteration, request

    def _needs_at(self, method: Method[Any], iteration: int, lottery: Lottery | None) -> Iterator[ArtifactRequest]:
        """Yield what a step asks for, for each of its draws, and what its networks start from."""
        pool = lottery.pool if lottery else None
        draws = range(max(method.draws, pool.together)) if pool else range(1)
        drawn = [str(lottery.draw(iteration, index)) if lottery else None for index in draws]
        for index, architecture in enumerate(drawn):
            start = start_of(pool, architecture, iteration, index) if pool and architecture else None
            yield from [start] if start else []
        for architecture in dict.fromkeys(drawn):
            yield from requests(method.needs(iteration, architecture), call_of(method, "needs"))

    def artifact_cell(self, request: ArtifactRequest) -> Cell:
        """Return the cell of an artifact: shared by every distillation and pool, and by methods of one provider.

        A network on the real data is shared by all components.
        """
        if isinstance(request, RealNetwork):
            return real_network_cell(request, self.problem, self.seed, self.resolve)
        architecture = self.resolve(request.architecture) if request.architecture else None
        entry = self.method.entry
        identity = {
            "problem": self.problem.fingerprint,
            "request": {"kind": request.kind, "index": request.index, **request.identity},
            "architecture": architecture.identity() if architecture else None,
            "provider": [entry.provider, self.method.cls.version],
            "seed": self.seed,
        }
        named = f" of {architecture}" if architecture else ""
        label = f"{request.kind} {request.index}{named} on {self._images_label}"
        components: list[Resolved[Any]] = [self.method, *([architecture] if architecture else [])]
        return Cell("artifact", identity, label, {**dict(c.code for c in components), **machinery_digests()})

    def architectures_until(self, iterations: int) -> list[Resolved[Architecture[Any]]]:
        """Return every architecture that the pool can draw in the first iterations, in order of appearance."""
        appeared = (a for start, drawable in self._drawable if start < iterations for a in drawable)
        return list({str(a): a for a in appeared}.values())

    def drawable(self) -> list[Resolved[Architecture[Any]]]:
        """Return every architecture that may be drawn; those of the first iteration even if there is no iteration."""
        if self.pool is None or self.total:
            return self.architectures_until(self.total)
        return [architecture for architecture, _ in mixture(self.pool.make(), 0, self.resolve)]

    @cached_property
    def is_pretrained(self) -> bool:
        """Whether a network that may be drawn, or that an artifact of the method has, starts pretrained."""
        named = {request.architecture for request in self.needs(0, self.total) if request.architecture}
        return any(map(starts_pretrained, [*self.drawable(), *map(self.resolve, sorted(named))]))

    @cached_property
    def _drawable(self) -> list[tuple[int, list[Resolved[Architecture[Any]]]]]:
        """The architectures that can be drawn, each list with the first iteration for which it holds."""
        if self.pool is None:
            return []
        lottery = Lottery(self.pool.make(), self.resolve, Streams(self.seed))
        changes: list[tuple[int, list[Resolved[Architecture[Any]]]]] = []
        before = None
        for iteration in range(self.total):
            mixture_here = lottery.mixture(iteration)
            # By identity: a lottery hands out the same list until the distribution changes, of a million iterations.
            if mixture_here is not before:
                changes.append((iteration, [architecture for architecture, _ in mixture_here]))
                before = mixture_here
        return changes
