"""Knowledge distillation: students learn from a teacher trained on the same set (model-pool paper, equation 1).

With ``teacher-data=real`` the teacher is trained on the real data, as SRe2L's and RDED's are, and is asked at every
step: what it says of an image is not stored (`SoftLabels` stores it).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import pydantic
import torch
from torch import Tensor
from torch.nn import functional

from harness import (
    Architecture,
    Artifact,
    ArtifactRequest,
    Batch,
    DistilledSet,
    Evaluator,
    LabelKind,
    Loss,
    Network,
    Problem,
    Streams,
    StudentRecord,
    option,
    train_network,
    train_students,
    trained_network,
)
from mpdd_plugins.evaluators.decoupled_recipes import DECOUPLED, TEACHER_MODES, TEMPERATURES
from mpdd_plugins.evaluators.protocol import TrainingOptions
from mpdd_plugins.evaluators.protocol_overview import protocol_rows
from mpdd_plugins.evaluators.protocol_tables import PROTOCOLS, SOFTMAX
from mpdd_plugins.methods.real_teacher import ARCHITECTURE as REAL_TEACHER
from mpdd_plugins.methods.real_teacher import EPOCHS, LR, by_batch_statistics, check_batch_statistics, real_teacher

OWN: Mapping[str, Mapping[str, Any]] = {
    name: {
        "temperature": TEMPERATURES[name],
        "alpha": 1.0,
        # As `soft-labels` has it: these protocols and their teachers are made for batch norm.
        "teacher": REAL_TEACHER,
        "teacher-data": "real",
        "teacher-mode": TEACHER_MODES[name],
        "rescale": False,
    }
    for name in DECOUPLED
}
"""Options of the teacher that a protocol has in place of the defaults."""
_LATER = {
    "teacher-data": "distilled", "teacher-mode": "eval", "teacher-epochs": EPOCHS, "teacher-lr": LR, "rescale": True,
}  # fmt: skip


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, *, alpha: float, temperature: float, rescale: bool = True
) -> Tensor:
    """Return alpha tau^2 KL(teacher || student) + (1 - alpha) CE, with the logits in KL divided by tau (equation 1).

    Args:
        student: logits of the student (n, classes).
        teacher: logits of the teacher on the same images (n, classes), without graph.
        labels: class indices (n,) or class weights (n, classes).
        alpha: weight of the teacher's term, in [0, 1].
        temperature: tau, above 0.
        rescale: whether the divergence is multiplied by tau^2.

    Returns:
        The mean over the n images, a scalar.
    """
    # tau^2 (Hinton et al., 2015, section 2): dividing the logits by tau divides the gradients by tau^2, so that without
    # the factor the weight of the teacher would depend on the temperature.
    y_s, y_t = (functional.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    divergence = functional.kl_div(y_s, y_t, reduction="batchmean", log_target=True)
    return alpha * (temperature**2 if rescale else 1.0) * divergence + (1 - alpha) * functional.cross_entropy(
        student, labels
    )


def own_teacher(artifact: Artifact, problem: Problem) -> Network:
    """Return the teacher that was trained on a distilled set, in evaluation mode and without gradients."""
    if artifact.architecture is None:
        raise TypeError("the artifact of a teacher has no architecture to build its network with")
    network = artifact.architecture.build(problem.shape, len(problem.classes), torch.Generator())
    network.load_state_dict(dict(artifact.tensors))
    return network.to(problem.device).eval().requires_grad_(False)


class KDOptions(TrainingOptions):
    """Options of `KD`."""

    # Without dd: its few steps at learned rates are for the cross-entropy that they were learned with.
    # Nor frepo, whose loss is no cross-entropy.
    protocol: Literal["v1", "quick", "dsa", "mtt", "idc", "ncfm", "sre2l", "rded", "frepo-softmax"] = option(
        "v1",
        f"{PROTOCOLS}, both with a teacher on the real data. {SOFTMAX}: Adam, lr 3e-4, 500 steps of warm-up, a cosine "
        "to 1 %, batch 500",
        source="DC, utils.py; DSA; MTT, evaluation; IDC, train.py; NCFM; SRe2L, relabel_cifar.py; RDED, validation; "
        "FRePo, script/eval",
    )
    temperature: float = option(
        1.5,
        "tau, by which both logits are divided. The default is 30 under sre2l and 20 under rded",
        source="the paper's code; SRe2L; RDED",
        gt=0,
    )
    alpha: float = option(
        0.5,
        "weight of the teacher's part. The default is 1 under sre2l and rded",
        source="the paper's code; SRe2L; RDED",
        ge=0,
        le=1,
    )
    teacher: str = option(
        "convnet",
        "architecture of the teacher; one on the distilled set is trained by the protocol itself whatever the students "
        f"depart by. The default is {REAL_TEACHER} under sre2l and rded",
        source="model-pool paper, section 3.3; RDED: conv3 or ResNet-18",
    )
    teacher_data: Literal["distilled", "real"] = option(
        "distilled",
        "what the teacher is trained on: the distilled set, anew for each student; or the real training images, once. "
        "The default is real under sre2l and rded",
        source="model-pool paper, section 3.3; SRe2L; RDED",
        alias="teacher-data",
    )
    teacher_epochs: int = option(
        EPOCHS,
        "epochs of a teacher on the real data, with a cosine to zero",
        source="SRe2L, squeeze of CIFAR",
        alias="teacher-epochs",
        ge=1,
    )
    teacher_lr: float = option(
        LR, "its learning rate at the start", source="SRe2L, squeeze of CIFAR", alias="teacher-lr", gt=0
    )
    teacher_mode: Literal["eval", "train"] = option(
        "eval",
        "the teacher's mode while it teaches; in train, batch norm takes the statistics of each batch. The default is "
        "train under sre2l, whose code does so",
        source="model-pool paper, section 3.3; RDED, validation; SRe2L, relabel_cifar.py",
        alias="teacher-mode",
    )
    rescale: bool = option(
        True,
        "multiply the teacher's part by tau squared. The default is false under sre2l and rded",
        source="Hinton et al., 2015; SRe2L; RDED",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_teachers(cls, values: Any) -> Any:  # noqa: ANN401
        """Fill in the options of the teacher that the protocol has in place of the defaults."""
        return {**OWN.get(str(values.get("protocol")), {}), **values} if isinstance(values, dict) else values

    @pydantic.model_validator(mode="after")
    def _leave_the_real_teacher_alone(self) -> Self:
        unused = [name for name in ("teacher-epochs", "teacher-lr") if name in self.changed()]
        if self.teacher_data == "distilled" and unused:
            remedy = f"leave out {', '.join(unused)}, or set teacher-data=real"
            raise ValueError(f"a teacher on the distilled set is trained by the protocol itself: {remedy}")
        return self

    def defaults(self) -> dict[str, Any]:
        """Return the options' defaults under this protocol."""
        own = {name.replace("-", "_"): value for name, value in OWN.get(self.protocol, {}).items()}
        return {**super().defaults(), **own}

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; those of teachers on the real data only if they are set."""
        # Cells keep the keys that they had before there were such teachers.
        return {key: value for key, value in super().as_json().items() if key not in _LATER or value != _LATER[key]}


class KD(Evaluator[KDOptions]):
    """Trains a teacher for each student index on the distilled set, then students on its logits and the labels.

    It takes regression labels only under the protocol frepo-softmax, which makes class weights of them: a teacher that
    fits them as they are has outputs near 0 and 1, or centred ones, whose softmax is close to uniform, so that the
    divergence of equation 1 would teach next to nothing.
    """

    Options = KDOptions

    @property
    def uses_real_data(self) -> bool:
        """Whether the teacher is trained on the real data."""
        return self.options.teacher_data == "real"

    @property
    def label_kinds(self) -> Sequence[LabelKind]:  # type: ignore[override]  # by protocol, and not of the class
        """The kinds of labels that it trains students on."""
        return ("hard", "soft", "regression") if self.options.protocol == "frepo-softmax" else ("hard", "soft")

    def protocols(self) -> list[dict[str, str]]:
        """Return the constants and sources of the protocols, with those of the teacher."""
        of_teacher = ("teacher", "teacher_data", "teacher_epochs", "teacher_lr", "teacher_mode")
        rows = protocol_rows(KDOptions, ("temperature", "alpha", "rescale", *of_teacher))
        own = dict.fromkeys(("teacher-epochs", "teacher-lr"), "the protocol's")
        return [row if row["teacher-data"] == "real" else row | own for row in rows]

    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the protocol's name with its departures, such as ``kd v1 + epochs=5``."""
        return f"kd {self.options.version_name()}{self.options.departures(problem, architecture)}"

    def artifact(self, student: int) -> ArtifactRequest:
        """Request the teacher of a student, trained by the protocol itself, without the students' departures."""
        options = self.options
        if options.teacher_data == "real":  # the same for all students, as the published ones
            return real_teacher(options.teacher, epochs=options.teacher_epochs, lr=options.teacher_lr)
        recipe = options.protocol_recipe(augmented=False).identity()
        # v1 and quick differ in the recipe already; their keys name no protocol, so that stored teachers stay valid.
        family = {} if self.options.protocol in ("v1", "quick") else {"protocol": self.options.protocol}
        return ArtifactRequest("teacher", student, self.options.teacher, recipe | family)

    def make_artifact(
        self,
        request: ArtifactRequest,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
    ) -> Artifact:
        """Train the teacher with cross-entropy from a seed of its own, and return its weights."""
        assert architecture is not None
        lesson = self.options.teaching(self.options.taught(distilled), problem, architecture, streams)
        network, losses = train_network(lesson, problem, architecture, request.index)
        return Artifact(network.state_dict(), {"loss": losses[-1]})

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score students, side by side if that is faster."""
        distilled = self.options.taught(distilled)
        augmented = self.options.augmentation(problem, architecture) != "none"
        batch = self.options.recipe(augmented).batch

        def loss_of(student: int) -> Loss:
            teacher = self._teacher(artifacts[student], problem)
            if augmented or self.options.teacher_mode == "train":
                return lambda batch: self._loss(batch, teacher(batch.images))
            # The teacher's logits of images that are never augmented are always the same: compute them once, in
            # batches, so that a large set takes no more memory than a step of training does.
            images, _ = distilled.training_data()
            logits = torch.cat([teacher(part.to(problem.device)) for part in torch.split(images, batch)])
            return partial(self._loss_from_logits, teacher_logits=logits)

        lesson = self.options.lesson(distilled, problem, architecture, streams, loss_of)
        if self.options.teacher_mode == "train":
            teacher, images = self._network(artifacts[students[0]], problem), len(distilled.training_data()[0])
            check_batch_statistics(teacher, problem, images, lesson.recipe.batch)
        return train_students(lesson, problem, architecture, students)

    def _loss_from_logits(self, batch: Batch, teacher_logits: Tensor) -> Tensor:
        """Return the loss of a step from the teacher's logits of the whole set."""
        return self._loss(batch, teacher_logits[batch.index])

    def _loss(self, batch: Batch, teacher: Tensor) -> Tensor:
        alpha, temperature = self.options.alpha, self.options.temperature
        return distillation_loss(
            batch.logits, teacher, batch.labels, alpha=alpha, temperature=temperature, rescale=self.options.rescale
        )

    def _teacher(self, artifact: Artifact, problem: Problem) -> Callable[[Tensor], Tensor]:
        """Return the trained teacher as a function from images (n, c, h, w) to logits (n, classes), without graph."""
        network = self._network(artifact, problem)
        return torch.no_grad()(by_batch_statistics(network) if self.options.teacher_mode == "train" else network)

    def _network(self, artifact: Artifact, problem: Problem) -> Network:
        """Return the trained teacher in evaluation mode."""
        return (trained_network if self.options.teacher_data == "real" else own_teacher)(artifact, problem)

    def work(self, problem: Problem, images: int) -> float:
        """Return the passes of one student; those of its teacher are counted as an artifact."""
        return self.options.student_work(problem, images)
