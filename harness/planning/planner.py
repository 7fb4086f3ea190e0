"""Turns a request into a plan: resolves names, checks options, and refuses before any work what cannot work."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, Literal

import torch

from harness.architectures.buildable import build_without_memory, check_buildable
from harness.compute.machine import choose_device
from harness.datasets.problems import data_root, make_problem, traits_of
from harness.errors import DataError, PluginError, StoreError, UsageError
from harness.learning.networks.probes import Panel, checked_probe
from harness.planning.arms import Arm
from harness.planning.plan import Plan
from harness.planning.request import Request
from harness.planning.set_options import SetOptions
from harness.planning.set_sources import Source, kind_note
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.registry import Entry, Registry, Resolved
from harness.plugins.returns import call_of, lines, returned
from harness.plugins.returns import text as checked_text
from harness.store.run_files import PlanScope
from harness.types.artifact import ArtifactRequest
from harness.types.dataset import RunDefaults
from harness.types.evaluator import check_takes
from harness.types.method import Method
from harness.types.names import Name, expand, name_or_text, parse_name, read_labels
from harness.types.network import Architecture
from harness.types.problem import Problem

NO_DEFAULTS = RunDefaults(options={})
"""For data sets themselves, whose defaults are known only once they are."""


@dataclass(frozen=True, eq=False)
class Planner:
    """Resolves the names of a request.

    Args:
        request: what was asked for.
        registry: the components that are installed.
    """

    request: Request
    registry: Registry
    _left_out: dict[str, None] = field(default_factory=dict)  # as a set, in the order of insertion
    _architectures: dict[str, Resolved[Any]] = field(default_factory=dict)
    _buildable: set[tuple[Any, ...]] = field(default_factory=set)
    _refused: dict[str, None] = field(default_factory=dict)
    """Lines on methods and pools whose architectures the methods refuse, as a set."""
    _splits: dict[str, Problem] = field(default_factory=dict)
    """By data set, the problem that is scored on its validation split: for probes."""
    _shown: dict[str, dict[str, None]] = field(default_factory=dict)
    """By a name as it was typed, the names that tables show for it."""

    @cached_property
    def set_options(self) -> SetOptions:
        """The options that were set by component."""
        return SetOptions.read(self.request.set, self.registry)

    def plan(self, scope: PlanScope | None = None) -> Plan:
        """Return all arms that were asked for, and the counts.

        Args:
            scope: the part to plan: a process that does one job of many need not plan them all; None for everything.

        Raises:
            UsageError, DataError, PluginError: a name or an option is wrong, or a combination cannot work.
            StoreError: the scope's data set is not among those that were asked for.
        """
        if not self.request.method:
            raise UsageError("no method was given: say --method dc; `ddbench methods` lists them")
        datasets = self.names("dataset", self.request.dataset, NO_DEFAULTS)
        plans = [self._plan_on(each, scope) for each in datasets if scope is None or str(each) == scope.dataset]
        if scope and not plans:
            gone = f"the plan has nothing on {scope.dataset} any more"
            raise StoreError(f"{gone}: its source or its data changed; give the command again")
        # A plan has one number of each for all its arms, so that rows of a table rest on equally many scores.
        counts = {(plan.students, plan.distillations) for plan in plans}
        if len(counts) > 1:
            raise UsageError("these data sets have different defaults: give --students and --distillations")
        notes = dict.fromkeys(note for plan in plans for note in plan.notes)
        arms = [arm for plan in plans for arm in plan.arms]
        return replace(
            plans[0],
            arms=arms,
            notes=(*notes, *self.notes(), *self.label_notes(arms)),
            set_options=self.request.set,
            checkpoint_every=self.request.checkpoint_every,
            labels=self.labels(arms),
        )

    def labels(self, arms: Sequence[Arm]) -> dict[str, str]:
        """Return the labels of the arms' components, by the names that tables show.

        Raises:
            UsageError: a label is the name of something else in the plan.
        """
        names, labels = _names_of(arms), dict[str, str]()
        for label, text in read_labels(self.request.label).items():
            shown = [name for name in self._shown.get(text, (text,)) if name in names]
            labels |= dict.fromkeys(shown, label)
            others = names - set(shown)
            if label in {*others, *(name_or_text(name).name for name in others)}:
                raise UsageError(f"label {label!r} of {text} is the name of another arm: choose another label")
            # A later run may bring the component of that name into the store.
            if label != name_or_text(text).name and any(entry.name == label for entry in self.registry.entries):
                raise UsageError(f"label {label!r} of {text} is the name of a component: choose another label")
        return labels

    def label_notes(self, arms: Sequence[Arm]) -> list[str]:
        """Return a line for each label of a name that nothing here has."""
        labels = read_labels(self.request.label)
        unused = labels.keys() - self.labels(arms).values()
        return [f"label {label}: nothing here is called {text}" for label, text in labels.items() if label in unused]

    def notes(self) -> list[str]:
        """Return lines on names that were left out, and on options that nothing uses."""
        unused = [f"--set {name}: nothing here uses {name}" for name in self.set_options.unused]
        return [*self._left_out, *self._refused, *unused]

    def names(self, kind: str, texts: Sequence[str], defaults: RunDefaults) -> list[Resolved[Any]]:
        """Resolve names of a kind with their sweeps multiplied out; ``all`` is every one that needs no options."""
        resolved = [part for text in texts for part in self._resolve_variants(kind, text.strip(), defaults)]
        return list({(part.entry.provider, str(part)): part for part in resolved}.values())

    def _resolve_variants(self, kind: str, text: str, defaults: RunDefaults) -> Iterator[Resolved[Any]]:
        if text != "all":
            for name in expand(text, self.request.max_cells):
                resolved = self.complete(kind, name, defaults)
                self._shown.setdefault(text, {})[str(resolved)] = None
                yield resolved
            return
        for entry in self.registry.of_kind(kind):
            try:
                if not self._lacks_options(entry, defaults):
                    component = self.complete(kind, Name(self.registry.display_name(entry)), defaults)
                    # These need no problem, so that one which cannot be made is left out here and now.
                    if kind in ("pool", "evaluator", "architecture"):
                        component.make()
                    yield component
            except PluginError as error:  # one broken plugin must not make `all` useless: the others still count
                if self.request.strict_plugins:
                    raise
                self._left_out[f"left out: {error}"] = None

    def complete(self, kind: str, name: Name, defaults: RunDefaults) -> Resolved[Any]:
        """Resolve a name with the options that were set for its component, and beneath them the data set's."""
        entry = self.registry.find(kind, name.name)
        return self.registry.resolve(kind, self.set_options.complete(name, entry, defaults.of(entry.name)))

    def _lacks_options(self, entry: Entry, defaults: RunDefaults) -> bool:
        fields = entry.load().Options.fields_by_name()
        values = {**defaults.of(entry.name), **self.set_options.of(entry)}
        return any(option.is_required() and name not in values for name, option in fields.items())

    def architecture(self, name: str) -> Resolved[Architecture[Any]]:
        """Resolve the name of an architecture, as pools and evaluators give it."""
        if name not in self._architectures:  # pools and evaluators name the same few for every cell
            self._architectures[name] = self.complete("architecture", parse_name(name), NO_DEFAULTS)
        return self._architectures[name]

    def _check_buildable(self, architecture: Resolved[Architecture[Any]], problem: Problem) -> None:
        """Raise what `check_buildable` raises, once for each architecture and shape of images."""
        key = (architecture.entry.provider, str(architecture), problem.shape, len(problem.classes))
        if key not in self._buildable:
            check_buildable(architecture, problem)
            self._buildable.add(key)

    def arms(
        self, sources: Sequence[tuple[Source, int | None]], problem: Problem, defaults: RunDefaults
    ) -> Iterator[Arm]:
        """Cross sources (with their iterations) with the evaluators and architectures that were asked for."""
        evaluators = self.names("evaluator", self.request.evaluator or defaults.evaluators, defaults)
        architectures = self.names("architecture", self.request.architecture or defaults.architectures, defaults)
        metrics = tuple(self.names("metric", self.request.metric, defaults))
        for metric in metrics:
            metric.make().check(problem)
        for architecture in architectures:
            self._check_buildable(architecture, problem)
        suited = self._suited(evaluators, architectures, problem)
        # One source is enough to check: what evaluators ask for depends on the problem, which all of them share.
        for (source, iterations), (evaluator, architecture) in product(sources[:1], suited):
            arm = Arm(source, iterations, evaluator, architecture, self.architecture)
            _ = arm.protocol  # read now, so that a wrong answer is refused before any work
            request = arm.artifact_request(0)
            if request and request.architecture:
                self._check_buildable(self.architecture(request.architecture), problem)
        for (source, _), evaluator in product(sources, evaluators):
            sets = source.describe(None)["method"]
            check_takes(evaluator.make(), source.label_kind, has_schedule=source.has_schedule, sets=sets)
        for (source, iterations), (evaluator, architecture) in product(sources, suited):
            yield Arm(source, iterations, evaluator, architecture, self.architecture, metrics)

    def _suited(
        self, evaluators: Sequence[Resolved[Any]], architectures: Sequence[Resolved[Any]], problem: Problem
    ) -> list[tuple[Resolved[Any], Resolved[Any]]]:
        """Return the pairs of evaluators and architectures that are applicable, and note why the others are not.

        Raises:
            UsageError: none is.
        """
        pairs, reasons = [], []
        for evaluator, architecture in product(evaluators, architectures):
            what = f"{evaluator.described}: unsuited()"
            request = evaluator.make().artifact(0)
            named = request.architecture if isinstance(request, ArtifactRequest) else None
            needed = self.architecture(named).make() if named else None
            try:
                reason = evaluator.make().unsuited(problem, architecture.make(), needed)
            except UsageError as error:  # its options are at fault, which nobody typed if it is one of `all`
                if "all" not in self.request.evaluator:
                    raise
                reasons.append(f"left out: {error}")
                continue
            if reason is None:
                pairs.append((evaluator, architecture))
                continue
            words = checked_text(returned(reason, str, what), what, longest=2000)
            reasons.append(f"{evaluator} is not applicable to {architecture}: {words}")
        if reasons and not pairs:
            raise UsageError(reasons[0])
        self._left_out.update(dict.fromkeys(reasons))
        return pairs

    def _refusal(self, source: TrajectorySource, problem: Problem) -> str | None:
        """Return a line on why a method refuses its pool or an architecture of it; None if it takes them all."""
        method = source.method
        if why := source.pool_refusal:
            return f"{method} through {source.pool} is not applicable: {why}"
        if method.cls.refusal is Method.refusal:
            return None
        for drawable in source.drawable():
            reason = source.first.refusal(build_without_memory(drawable, problem))
            if reason is not None:
                why = checked_text(reason, call_of(source.first, "refusal"), longest=500)
                return f"{method} through {source.pool} is not applicable: {source.named(drawable)} {why}"
        return None

    def problem(self, dataset: Resolved[Any]) -> Problem:
        """Load a data set as the request wants it split."""
        return self._split(dataset, self.request.score_on, hold_out=self.request.keep_hold_out)

    def _split(self, dataset: Resolved[Any], score_on: Literal["test", "validation"], *, hold_out: bool) -> Problem:
        seed, device = self.request.seed, self._device()
        return make_problem(dataset, root=data_root(), score_on=score_on, hold_out=hold_out, seed=seed, device=device)

    def _with_probes(self, source: TrajectorySource, dataset: Resolved[Any]) -> TrajectorySource:
        """Return a source with the panel of its pool's probes, and with what it replays; itself if there are none.

        Probes are scored on the validation split. Unless that is held out already, it is for the search alone, and the
        source replays on all training images what the search has found.

        Raises:
            UsageError: the probes cannot be made as the pool asks.
        """
        pool = source.pool.make() if source.pool else None
        probe = checked_probe(pool) if pool else None
        if pool is None or probe is None:
            return source
        with _named(f"the probes of {source.pool}"):
            if str(dataset) not in self._splits:
                self._splits[str(dataset)] = self._split(dataset, "validation", hold_out=True)
            validation = self._splits[str(dataset)]
            evaluator = self.complete("evaluator", parse_name(probe.evaluator), NO_DEFAULTS)
            panel = Panel(probe, evaluator, {name: self.architecture(name) for name in probe.architectures}, validation)
            for architecture in panel.architectures.values():
                self._check_buildable(architecture, validation)
            if source.ipc:
                check_ipc(source.ipc, validation)
        sets = source.describe(None)["method"]
        panel.check(str(source.pool), source.label_kind, has_schedule=source.has_schedule, sets=sets)
        if source.problem.hold_out:
            return source.with_probes(panel)
        if pool.replays:
            return source.replaying(source.on(validation).with_probes(panel))
        return source.on(self._split(dataset, "test", hold_out=True)).with_probes(panel)

    def _device(self) -> torch.device:
        device = choose_device(self.request.device)
        if self.request.precision == "tf32" and device.type != "cuda":
            raise UsageError(f"--precision tf32 is for NVIDIA GPUs, but this run is on {device}: use fp32 or bf16")
        return device

    def _plan_on(self, dataset: Resolved[Any], scope: PlanScope | None) -> Plan:
        defaults = traits_of(dataset).defaults
        request, problem = self.request, self.problem(dataset)
        sources: dict[str, tuple[Source, int]] = {}
        notes: dict[str, None] = {}
        without_pool: dict[str, None] = {}
        for source, points in self._sources(dataset, problem, defaults, scope):
            if source.pool is None:
                without_pool[source.method.entry.name] = None
            notes |= dict.fromkeys(lines(source.first.notes(), call_of(source.first, "notes")))
            notes |= dict.fromkeys(note for note in [kind_note(source), source.probe_note] if note)
            for point in points:
                # By key: a method that uses no pool or no ipc is crossed with all of them, and gives one set.
                sources.setdefault(source.set_cell(0, point).key, (source, point))
        if not sources and self._refused:
            raise UsageError("; ".join(self._refused))
        return Plan(
            list(self.arms(list(sources.values()), problem, defaults)),
            request.students or defaults.students,
            request.distillations or defaults.distillations,
            request.rerun_stale,
            (*_not_applicable(list(without_pool)), *notes),
        )

    def _sources(
        self, dataset: Resolved[Any], problem: Problem, defaults: RunDefaults, scope: PlanScope | None
    ) -> Iterator[tuple[TrajectorySource, Sequence[int]]]:
        """Yield methods crossed with pools and images per class, each with its points; inapplicable ones once."""
        request = self.request
        asked_points = tuple(dict.fromkeys(request.iterations or defaults.iterations))
        methods = self.names("method", request.method, defaults)
        pools = self.names("pool", request.pool, defaults)
        for ipc, method, pool in product(request.ipc or defaults.ipc, methods, pools):
            if method.cls.uses_ipc:
                check_ipc(ipc, problem)
            points = asked_points if method.cls.iterates else (1,)
            source = TrajectorySource(
                problem,
                method,
                pool if method.cls.uses_pool else None,
                ipc if method.cls.uses_ipc else None,
                request.seed,
                request.precision,
                max(points),
                self.architecture,
            )
            if scope and source.scope != scope:
                continue
            _ = source.main, source.settings  # read now, so that a wrong answer is refused before any work
            for drawable in source.drawable():
                self._check_buildable(drawable, problem)
            if refusal := self._refusal(source, problem):
                self._refused[refusal] = None
                continue
            for artifact in source.needs(0, source.total):
                if artifact.architecture:
                    self._check_buildable(self.architecture(artifact.architecture), problem)
            yield self._with_probes(source, dataset), points


def _names_of(arms: Sequence[Arm]) -> set[str]:
    """Return the names of all components of arms, as tables show them."""
    fields = ("dataset", "method", "pool", "evaluator", "architecture")
    return {str(shown[field]) for arm in arms for shown in [arm.describe()] for field in fields if shown.get(field)}


def _not_applicable(without_pool: Sequence[str]) -> list[str]:
    """Return one line for all methods that draw no network, in place of a row for each pool."""
    if not without_pool:
        return []
    *others, last = without_pool
    named, verb = (f"{', '.join(others)} and {last}", "draw") if others else (last, "draws")
    return [f"{named} {verb} no network: a pool is not applicable"]


def check_ipc(ipc: int, problem: Problem) -> None:
    """Raise `DataError` if a class has fewer training images than the distilled set would have."""
    sizes = [len(members) for members in problem.of_class]
    smallest = sizes.index(min(sizes))
    if ipc > sizes[smallest]:
        count = f"{sizes[smallest]} training image{'' if sizes[smallest] == 1 else 's'}"
        shortage = f"class {problem.classes[smallest]!r} of {problem.name} has only {count}"
        shortage += " without the validation split" if problem.hold_out else ""
        raise DataError(f"ipc {ipc} is larger than a class: {shortage}; use a smaller --ipc")


@contextmanager
def _named(who: str) -> Iterator[None]:
    """Say in errors of names and images who uses what they are about."""
    try:
        yield
    except (UsageError, DataError) as error:
        raise type(error)(f"{who}: {error}") from error
