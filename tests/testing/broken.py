"""Components that each break one promise; what they do right they inherit. Names say which promise."""

import html
import itertools
import pickle
import random
import signal
import subprocess
from dataclasses import replace

import numpy as np
import pydantic
import torch
from torch import nn

from harness import (
    Architecture,
    Artifact,
    ArtifactRequest,
    Content,
    DataError,
    Dataset,
    DatasetOptions,
    DistilledSet,
    Encoding,
    Evaluator,
    Executor,
    Method,
    Metric,
    Network,
    Options,
    Outline,
    Parametrisation,
    Pool,
    Probe,
    RawData,
    RealNetwork,
    Recipe,
    Report,
    RunDefaults,
    Running,
    SetFormat,
    Split,
    StudentRecord,
    Tracker,
    Traits,
    freeze_statistics,
    gradient_in_slices,
    gradient_of,
    logits_for,
    lost_metadata,
    open_encoding,
    option,
    read_arrays,
)

COUNT = itertools.count()


# --- parametrisations ---


class GoodParametrisation(Parametrisation):
    """Stores halves of images side by side with a shared brightness, and mirrors them."""

    def initial(self, start):
        return {"images": start.pixels(start.ipc), "brightness": torch.ones(1)}

    def decode(self, tensors, labels, shape):
        images = tensors["images"] * tensors["brightness"]
        return torch.cat([images, images.flip(3)]), torch.cat([labels, labels])

    def constrain(self, tensors):
        tensors["images"].clamp_(0, 1)
        tensors["brightness"].clamp_(0, 1)


class SparingParametrisation(GoodParametrisation):
    def initial(self, start):
        tensors = super().initial(start)
        return {**tensors, "images": tensors["images"][:-1]}


class GlaringParametrisation(GoodParametrisation):
    def decode(self, tensors, labels, shape):
        images, labels = super().decode(tensors, labels, shape)
        return images * 2, labels


class WildParametrisation(GoodParametrisation):
    def constrain(self, tensors):
        pass


class DrawingParametrisation(GoodParametrisation):
    def decode(self, tensors, labels, shape):
        images, labels = super().decode(tensors, labels, shape)
        return images * torch.rand(len(images), 1, 1, 1), labels


class UnseededParametrisation(GoodParametrisation):
    def initial(self, start):
        tensors = super().initial(start)
        return {**tensors, "images": torch.rand_like(tensors["images"])}


class MixingParametrisation(GoodParametrisation):
    def decode(self, tensors, labels, shape):
        images, _ = super().decode(tensors, labels, shape)
        return images, labels.repeat_interleave(2)


class DetachingParametrisation(GoodParametrisation):
    def decode(self, tensors, labels, shape):
        return super().decode({**tensors, "brightness": tensors["brightness"].detach()}, labels, shape)


class FreeParametrisation(GoodParametrisation):
    def storage_bits(self, tensors, labels):
        return 0


class LabelledParametrisation(GoodParametrisation):
    """Learns labels beside the images: real values, at first centred one-hot vectors."""

    label_kind = "regression"

    def initial(self, start):
        classes = len(start.problem.classes)
        labels = torch.eye(classes).repeat_interleave(start.ipc, 0) - 1 / classes
        return {**super().initial(start), "labels": labels}

    def decode(self, tensors, labels, shape):
        images, _ = super().decode(tensors, labels, shape)
        return images, torch.cat([tensors["labels"], tensors["labels"]])


class UndeclaredParametrisation(LabelledParametrisation):
    label_kind = None


class UnboundParametrisation(LabelledParametrisation):
    """Its labels are weights at first, and anything later."""

    label_kind = "soft"

    def initial(self, start):
        tensors = super().initial(start)
        return {**tensors, "labels": tensors["labels"] + 1 / len(start.problem.classes)}


class EvenParametrisation(GoodParametrisation):
    def initial(self, start):
        images = start.pixels(start.ipc)
        return {"images": images.reshape(len(images), -1, 2)}

    def decode(self, tensors, labels, shape):
        return tensors["images"].reshape(-1, *shape), labels

    def constrain(self, tensors):
        tensors["images"].clamp_(0, 1)


# --- formats ---


class GoodFormat(SetFormat):
    """Inputs and class indices as arrays."""

    suffixes = (".good",)

    def read(self, path, entry):
        return self.content(path, read_arrays(path, lambda name: name in ("images", "labels")))

    def content(self, path, arrays):
        if set(arrays) != {"images", "labels"} or any(array.dtype.kind not in "fi" for array in arrays.values()):
            raise DataError(f"{path.name} is not good")
        return Content(path.name, *(torch.from_numpy(arrays[name]) for name in ("images", "labels")))

    def refusal(self, distilled):
        return "its labels are not hard: a good file holds classes" if distilled.label_kind != "hard" else None

    def write(self, distilled, path):
        images, labels = self.data(distilled)
        with path.open("wb") as file:
            np.savez(file, images=images.numpy(), labels=labels.numpy())
        return lost_metadata(distilled)

    def data(self, distilled):
        return distilled.training_data()


class GreedyFormat(GoodFormat):
    def recognises(self, path):
        return True


class ShyFormat(GoodFormat):
    def recognises(self, path):
        return False


class LossyFormat(GoodFormat):
    def data(self, distilled):
        images, labels = super().data(distilled)
        return 0.9 * images, labels


class SuffixingFormat(GoodFormat):
    def write(self, distilled, path):
        images, labels = self.data(distilled)
        np.savez(path, images=images.numpy(), labels=labels.numpy())
        return lost_metadata(distilled)


class SilentFormat(GoodFormat):
    def write(self, distilled, path):
        super().write(distilled, path)
        return ()


class UndecodedFormat(GoodFormat):
    def data(self, distilled):
        return distilled.images, distilled.labels


class WordyFormat(GoodFormat):
    def refusal(self, distilled):
        return "no.\nReally not." if distilled.label_kind != "hard" else None


class CachingFormat(GoodFormat):
    def read(self, path, entry):
        path.with_suffix(".cache").touch()
        return super().read(path, entry)


class TrustingFormat(GoodFormat):
    def content(self, path, arrays):
        return Content(path.name, *(torch.from_numpy(arrays[name]) for name in ("images", "labels")))


class PicklingFormat(GoodFormat):
    def read(self, path, entry):
        try:
            return self.content(path, pickle.loads(path.read_bytes()))
        except Exception as error:
            raise DataError(f"{path.name} is not good: {type(error).__name__}") from None

    def write(self, distilled, path):
        images, labels = self.data(distilled)
        path.write_bytes(pickle.dumps({"images": images.numpy(), "labels": labels.numpy()}))
        return lost_metadata(distilled)


# --- pools ---


class GoodPool(Pool):
    def distribution(self, iteration):
        return {"mlp": 0.25, "convnet": 0.75}


class HalfPool(GoodPool):
    def distribution(self, iteration):
        return {"mlp": 0.5}


class UnknownPool(GoodPool):
    def distribution(self, iteration):
        return {"perceptron": 1.0}


class CountingPool(GoodPool):
    def __init__(self, options):
        super().__init__(options)
        self.asked = 0

    def distribution(self, iteration):
        self.asked += 1
        return {"mlp": 1 / self.asked, "convnet": 1 - 1 / self.asked}


class LuckyPool(GoodPool):
    def __init__(self, options):
        super().__init__(options)
        self.share = 1 / (2 + next(COUNT) % 7)

    def distribution(self, iteration):
        return {"mlp": self.share, "convnet": 1 - self.share}


class UndrawnMainPool(GoodPool):
    main = "lenet"


class ForgetfulPool(GoodPool):
    heard = 0

    def distribution(self, iteration):
        return {"mlp": 1.0} if self.heard else {"convnet": 1.0}

    def observe(self, architecture, scalars):
        self.heard += 1


class DividingPool(GoodPool):
    share = 0.5

    def distribution(self, iteration):
        return {"mlp": self.share, "convnet": 1 - self.share}

    def observe(self, architecture, scalars):
        self.share = 1 / (1 + abs(scalars.get("loss", 1.0)))

    def state(self):
        return {"share": self.share}

    def restore(self, state):
        self.share = state["share"]


class ClimbingPool(GoodPool):
    """Draws the MLP as often as the last probe was right."""

    share = 0.5
    probe = Probe(("mlp[width=8]",), "plain[epochs=2]")

    def distribution(self, iteration):
        return {"mlp": self.share, "convnet": 1 - self.share}

    def probes_at(self, iteration):
        return iteration % 10 == 0

    def probed(self, result, generator):
        self.share = result.mean

    def state(self):
        return {"share": self.share}

    def restore(self, state):
        self.share = state["share"]


class StrangerPool(GoodPool):
    """Draws together what it does not list."""

    together = 2

    def distribution_of(self, iteration, draw):
        return {"lenet": 1.0} if draw else {"mlp": 1.0}


class OtherStartPool(GoodPool):
    def starts_from(self, architecture, iteration, draw):
        return RealNetwork(architecture="lenet", recipe=Recipe(epochs=1))


class UnseededStartPool(GoodPool):
    def prepare(self, network, generator):
        with torch.no_grad():
            network.classifier.weight.add_(torch.randn(network.classifier.weight.shape))


class NeedyProbePool(ClimbingPool):
    probe = Probe(("mlp[width=8]",), "kd[epochs=2]")


class MovingProbePool(ClimbingPool):
    def probes_at(self, iteration):
        return iteration > 100 * self.share


class LuckyProbePool(ClimbingPool):
    def probed(self, result, generator):
        self.share = random.random()


class ForgetfulProbePool(ClimbingPool):
    gain = 0.1

    def probed(self, result, generator):
        self.share, self.gain = self.gain * result.mean, self.gain + 0.1


# --- methods ---


class GoodMethod(Method):
    """Images drift towards fresh real ones."""

    uses_pool = False

    def __init__(self, task, options):
        super().__init__(task, options)
        self.labels = torch.arange(len(task.problem.classes)).repeat_interleave(task.ipc)
        self.images = self.real("init")
        self.drift = torch.zeros_like(self.images)

    def real(self, role, *index):
        problem, streams = self.task.problem, self.task.streams
        draws = (streams.generator(role, *index, label) for label in range(len(problem.classes)))
        return torch.cat([problem.real_batch(label, self.task.ipc, generator) for label, generator in enumerate(draws)])

    def step(self, iteration, networks):
        self.drift = 0.5 * self.drift + 0.1 * (self.real("real", iteration) - self.images)
        self.images += self.drift
        return {"drift": float(self.drift.norm())}

    def distilled(self):
        return self.task.distilled(self.images, self.labels)

    def learned(self):
        return {"images": self.images}

    def state(self):
        return {"images": self.images, "drift": self.drift}

    def restore(self, state):
        self.images, self.drift = state["images"].clone(), state["drift"].clone()


class IdleMethod(GoodMethod):
    def step(self, iteration, networks):
        return {}


class CopyingMethod(GoodMethod):
    def __init__(self, task, options):
        super().__init__(task, options)
        self.first = self.images.clone()

    def learned(self):
        return {"images": self.first}


class ClockMethod(GoodMethod):
    def step(self, iteration, networks):
        self.images += random.random() + float(np.random.rand())
        return {}


class ForgetfulMethod(GoodMethod):
    def state(self):
        return {"images": self.images}

    def restore(self, state):
        self.images = state["images"].clone()


class GlobalMethod(GoodMethod):
    drifts = {}

    def step(self, iteration, networks):
        at = (self.task.streams, self.images.shape)
        before = self.drifts.get((*at, iteration), torch.zeros_like(self.images))
        self.drift = self.drifts[*at, iteration + 1] = 0.5 * before + self.real("real", iteration) - self.images
        self.images += 0.1 * self.drift
        return {}


class SharingMethod(GoodMethod):
    def restore(self, state):
        self.images, self.drift = state["images"], state["drift"]


class LiveMethod(GoodMethod):
    def distilled(self):
        return DistilledSet(self.images, self.labels, self.task.problem.classes, self.task.problem.preprocessing)


class UndrawingMethod(GoodMethod):
    uses_pool = True


class HurriedMethod(GoodMethod):
    def step(self, iteration, networks):
        self.images += 1 / self.task.iterations
        return {}


class InfiniteMethod(GoodMethod):
    def step(self, iteration, networks):
        super().step(iteration, networks)
        return {"loss": float("inf")}


class NeedyMethod(GoodMethod):
    def needs(self, iteration, architecture):
        return [ArtifactRequest("toy", next(COUNT))]

    def make_artifact(self, request, problem, architecture, streams, scratch):
        return Artifact({"one": torch.ones(1)})


class UnsoundMethod(NeedyMethod):
    def needs(self, iteration, architecture):
        return [ArtifactRequest("toy", 0)]

    def make_artifact(self, request, problem, architecture, streams, scratch):
        return Artifact({"one": torch.full((1,), torch.nan)})


class SparingMethod(GoodMethod):
    def distilled(self):
        return self.task.distilled(self.images[:1], self.labels[:1])


class GreyMethod(GoodMethod):
    def step(self, iteration, networks):
        self.images -= self.images.mean() * torch.ones(1, 1, 16, 16)
        return super().step(iteration, networks)


class LazyMethod(GoodMethod):
    def work(self):
        return -1.0


class MatchingMethod(GoodMethod):
    """Images whose gradients approach those of real ones, class by class."""

    uses_pool = True

    def draw(self, role, iteration, label, count=24):
        return self.task.problem.real_batch(label, count, self.task.streams.generator(role, iteration, label))

    def freeze(self, network, iteration):
        labels = range(len(self.task.problem.classes))
        freeze_statistics(network, lambda: torch.cat([self.draw("bn", iteration, label, 8) for label in labels]))

    def step(self, iteration, networks):
        network = networks.draw()
        self.freeze(network, iteration)
        for label in range(len(self.task.problem.classes)):
            real = self.draw("real", iteration, label)
            labels = torch.full((len(real),), label)
            mine = self.images[self.labels == label].detach().requires_grad_()
            ours = gradient_of(network, mine, labels[: len(mine)], differentiable=True)
            theirs = self.gradient(network, real, labels)
            loss = sum((ours_of - theirs_of).square().sum() for ours_of, theirs_of in zip(ours, theirs, strict=True))
            (change,) = torch.autograd.grad(loss, mine)
            self.images[self.labels == label] -= change / change.norm()
        return {"loss": loss.item()}

    def gradient(self, network, real, labels):
        return gradient_in_slices(network, real, labels, 8)


class UnfrozenMethod(MatchingMethod):
    """Batch norm has the statistics of the class that is matched."""

    def freeze(self, network, iteration):
        pass


class CollectiveMethod(MatchingMethod):
    """The mean gradient of all classes' real images against that of all synthetic ones at once, as DCC has it."""

    def step(self, iteration, networks):
        network = networks.draw()
        self.freeze(network, iteration)
        classes = range(len(self.task.problem.classes))
        reals = [self.draw("real", iteration, label) for label in classes]
        each = [gradient_of(network, real, torch.full((len(real),), label)) for label, real in enumerate(reals)]
        mine = self.images.detach().requires_grad_()
        ours = gradient_of(network, mine, self.labels, differentiable=True)
        theirs = [sum(pieces) / len(classes) for pieces in zip(*each, strict=True)]
        loss = sum((ours_of - theirs_of).square().sum() for ours_of, theirs_of in zip(ours, theirs, strict=True))
        (change,) = torch.autograd.grad(loss, mine)
        self.images = self.images - change / change.norm()
        return {"loss": loss.item()}


class UnfrozenCollectiveMethod(UnfrozenMethod, CollectiveMethod):
    """An outsider's DCC: real gradients by the statistics of each class, synthetic ones by those of all."""


class JointMethod(UnfrozenMethod):
    """All classes in one pass whose batch norm mixes them, and then the gradient of each."""

    def step(self, iteration, networks):
        network = networks.draw()
        classes, weights = range(len(self.task.problem.classes)), list(network.parameters())
        real = torch.cat([self.draw("real", iteration, label) for label in classes])
        real_labels = torch.arange(len(classes)).repeat_interleave(len(real) // len(classes))
        mine = self.images.detach().requires_grad_()
        loss = 0.0
        for label in classes:
            gradients = []
            for logits, labels in ((network(mine), self.labels), (network(real), real_labels)):
                own = nn.functional.cross_entropy(logits[labels == label], labels[labels == label])
                gradients.append(torch.autograd.grad(own, weights, create_graph=True))
            loss += sum((ours - theirs.detach()).square().sum() for ours, theirs in zip(*gradients, strict=True))
        (change,) = torch.autograd.grad(loss, mine)
        self.images = self.images - change / change.norm()
        return {"loss": loss.item()}


class SlicingMethod(UnfrozenMethod):
    def gradient(self, network, real, labels):
        parts = zip(real.split(8), labels.split(8), strict=True)
        each = [[len(part) * piece for piece in gradient_of(network, part, some)] for part, some in parts]
        return [sum(pieces) / len(real) for pieces in zip(*each, strict=True)]


class PerImageMethod(UnfrozenMethod):
    def gradient(self, network, real, labels):
        weights = dict(network.named_parameters())

        def loss(weights, image, label):
            return nn.functional.cross_entropy(torch.func.functional_call(network, weights, image[None]), label[None])

        each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0), randomness="different")(weights, real, labels)
        return [piece.mean(0) for piece in each.values()]


class ReseedingMethod(MatchingMethod):
    def gradient(self, network, real, labels):
        torch.seed()
        return super().gradient(network, real, labels)


class PackedMethod(GoodMethod):
    """An outsider's IDC: four images are decoded from each that is stored."""

    def distilled(self):
        pixels = self.task.problem.preprocessing.invert(self.images).clamp(0, 1)
        packing = open_encoding("multi-formation[factor=2]", self.task.problem.shape)
        return self.task.distilled(pixels, self.labels, encoding=packing)


class FactorisedMethod(GoodMethod):
    """Codes that stay as they are, of which a shared tensor, which alone is learned, makes two images each."""

    def __init__(self, task, options):
        super().__init__(task, options)
        self.codes = task.problem.preprocessing.invert(self.images).clamp(0, 1)
        self.images = self.brightness(task)

    def brightness(self, task):
        return torch.full((1,), 0.9) + 0.05 * torch.rand(1, generator=task.streams.generator("brightness"))

    def step(self, iteration, networks):
        self.images *= 0.99
        return {}

    def distilled(self):
        factors = {"brightness": self.images.clone()}
        encoding = Encoding(GoodParametrisation(Options()), "toy", "toys", self.task.problem.shape, factors)
        return self.task.distilled(self.codes, self.labels, encoding=encoding)

    def state(self):
        return {"codes": self.codes, "images": self.images}

    def restore(self, state):
        self.codes, self.images = state["codes"].clone(), state["images"].clone()


class UnseededFactorMethod(FactorisedMethod):
    def brightness(self, task):
        return torch.full((1,), 0.9) + 0.05 * torch.rand(1)


class LivingMethod(GoodMethod):
    """Images that approach the weights of a network that lives for three steps."""

    uses_pool = True

    def step(self, iteration, networks):
        member = self.live(networks).choose()
        for parameter in member.network.parameters():
            self.images += 0.01 * parameter.detach().mean()
        member.train(self.images, self.labels)
        return {"age": float(member.age)}

    def live(self, networks):
        return networks.live(2, steps=3, recipe=Recipe(lr=0.1, schedule="constant"), staggered=True)


class ExtraTrainingMethod(LivingMethod):
    """Trains its networks by momentum of its own besides, which its state does not hold."""

    def step(self, iteration, networks):
        scalars = super().step(iteration, networks)
        member = self.live(networks)[0]
        change = vars(self).setdefault("momentum", torch.ones(()))
        with torch.no_grad():
            member.network.classifier.bias += change
        self.momentum = change * 0.5
        return scalars


# --- evaluators ---


class GoodEvaluator(Evaluator):
    """Scores that a hash gives."""

    def protocol(self, problem, architecture):
        return "good v1"

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        distilled.training_data()
        for student in students:
            yield self.record(student, streams.number("good", student) % 19, 18)

    def record(self, student, right, of):
        return StudentRecord(student, right / of, 0.5, 1, 0.0, 0, False)


class SilentEvaluator(GoodEvaluator):
    def protocol(self, problem, architecture):
        return " "


class BackwardEvaluator(GoodEvaluator):
    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        return super().evaluate(distilled, problem, architecture, students[::-1], artifacts, streams)


class PercentEvaluator(GoodEvaluator):
    def record(self, student, right, of):
        return replace(super().record(student, right, of), accuracy=100.0)


class RoundingEvaluator(GoodEvaluator):
    def record(self, student, right, of):
        return replace(super().record(student, right, of), accuracy=0.333)


class UnevenEvaluator(GoodEvaluator):
    """Half of its students report a metric."""

    def record(self, student, right, of):
        return replace(super().record(student, right, of), metrics={"nll": float("nan")} if student % 2 else {})


class MisnamingEvaluator(GoodEvaluator):
    def record(self, student, right, of):
        return replace(super().record(student, right, of), metrics={"log nll": 1.0})


class CrowdedEvaluator(GoodEvaluator):
    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        for student in students:
            yield self.record(student, (streams.number("good", student) + len(students)) % 19, 18)


class ChanceEvaluator(GoodEvaluator):
    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        for student in students:
            yield replace(self.record(student, 9, 18), loss=float(np.random.rand()))


class ConstantEvaluator(GoodEvaluator):
    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        return (self.record(student, 9, 18) for student in students)


class WritingEvaluator(GoodEvaluator):
    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        distilled.images.add_(1)
        return super().evaluate(distilled, problem, architecture, students, artifacts, streams)


class HardEvaluator(GoodEvaluator):
    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        torch.nn.functional.one_hot(distilled.labels)
        return super().evaluate(distilled, problem, architecture, students, artifacts, streams)


class EagerEvaluator(GoodEvaluator):
    """Declares labels that it cannot take."""

    label_kinds = ("hard", "soft", "regression")

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        assert distilled.label_kind != "regression", "negative labels"
        return super().evaluate(distilled, problem, architecture, students, artifacts, streams)


class StrictEvaluator(HardEvaluator):
    """Takes hard labels, and says so."""

    label_kinds = ("hard",)

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        if distilled.label_kind != "hard":
            raise DataError("only hard labels are taken: give a set with class indices")
        return super().evaluate(distilled, problem, architecture, students, artifacts, streams)


class OrderlessEvaluator(GoodEvaluator):
    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        assert distilled.schedule is None, "a schedule"
        return super().evaluate(distilled, problem, architecture, students, artifacts, streams)


class MintingEvaluator(GoodEvaluator):
    def artifact(self, student):
        return ArtifactRequest("coin", student)

    def make_artifact(self, request, distilled, problem, architecture, streams):
        return Artifact({"coin": torch.rand(3)})


class MisquotingEvaluator(GoodEvaluator):
    """Its table of protocols has rows of different columns."""

    def protocols(self):
        return [{"protocol": "good v1", "lr": "0.1", "source": "x"}, {"protocol": "good v2", "source": "x"}]


class NowhereEvaluator(GoodEvaluator):
    def unsuited(self, problem, architecture, needed):
        return "it trains nothing"


class VagueEvaluator(GoodEvaluator):
    uses_real_data = "sometimes"


class NothingToDoEvaluator(GoodEvaluator):
    def work(self, problem, images):
        return 0.0


# --- architectures ---


class GoodArchitecture(Architecture):
    def network(self, shape, classes):
        return Flat(shape, classes)


class Flat(Network):
    def __init__(self, shape, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8))
        self.classifier = nn.Linear(8, classes)

    def features(self, images):
        return self.body(images)


def architecture(network):
    """An architecture of networks of another kind."""
    return type("Of", (GoodArchitecture,), {"network": lambda self, shape, classes: network(shape, classes)})


class Maps(Flat):
    def features(self, images):
        return super().features(images)[:, :, None]

    def forward(self, images):
        return self.classifier(self.features(images)[:, :, 0])


class Sleeping(Flat):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.eval()


class Unseeded(Flat):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        nn.init.constant_(self.classifier.bias, float(np.random.rand()))


class Deaf(Flat):
    def features(self, images):
        return super().features(images.detach())


class Noting(Flat):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.level = torch.ones(1)

    def features(self, images):
        self.level = self.level + images.mean().detach()
        return super().features(images) + self.level


class Together(Flat):
    def features(self, images):
        features = super().features(images)
        return features - features.mean(0)


class Choosy(Flat):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.pool = nn.MaxPool2d(8)

    def features(self, images):
        self.pool(images)
        return super().features(images)


class Overwriting(Flat):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.name_taps({"hidden": "body.1"})

    def features(self, images):
        return super().features(images).add_(1)


MapsArchitecture, SleepingArchitecture, UnseededArchitecture, DeafArchitecture = map(
    architecture, (Maps, Sleeping, Unseeded, Deaf)
)
NotingArchitecture, TogetherArchitecture, ChoosyArchitecture = map(architecture, (Noting, Together, Choosy))
OverwritingArchitecture = architecture(Overwriting)


class DrawingArchitecture(GoodArchitecture):
    def build(self, shape, classes, generator):
        torch.rand(1)
        return super().build(shape, classes, generator)


# --- data sets ---


class GoodDataset(Dataset):
    def load(self, root):
        return RawData(self.split(6, 0), self.split(3, 1), ("a", "b"))

    def split(self, per_class, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(2).repeat(per_class)
        return Split(torch.randint(0, 256, (len(labels), 1, 8, 8), generator=generator).to(torch.uint8), labels)


class UnderivedDataset(GoodDataset):
    class Options(Options):
        normalize: str = option("own", "as others have it")
        zca: bool = option(False, "as others have it")
        zca_eps: float = option(0.1, "as others have it")


class StumblingDataset(GoodDataset):
    def load(self, root):
        if not any(root.iterdir()):
            raise KeyError("train.npz")
        return super().load(root)


class FloatDataset(GoodDataset):
    def split(self, per_class, seed):
        split = super().split(per_class, seed)
        return Split(split.images.float(), split.labels)


class TwinsDataset(GoodDataset):
    def load(self, root):
        return replace(super().load(root), classes=("a", "a"))


class ChangingDataset(GoodDataset):
    def split(self, per_class, seed):
        return super().split(per_class, next(COUNT))


class MisleadingDataset(GoodDataset):
    @property
    def outline(self):
        return Outline(("b", "a"), (1, 8, 8))


class StrangeDataset(GoodDataset):
    traits = Traits(defaults=RunDefaults(architectures=("perceptron",)))


class BrokenPixelsDataset(GoodDataset):
    class Options(DatasetOptions):
        normalize: str = option("cifar10", "of another number of channels")


# --- reports ---


class GoodReport(Report):
    suffix = ".html"

    def render(self, results):
        return "".join(f"<p>{html.escape(score.method)} {score.accuracy}</p>" for score in results.scores) or "nothing"


class SuffixReport(GoodReport):
    suffix = "html"


class SilentReport(GoodReport):
    def render(self, results):
        return None


class ChangingReport(GoodReport):
    def render(self, results):
        return f"{super().render(results)} {next(COUNT)}"


class MarkupReport(GoodReport):
    def render(self, results):
        return "".join(f"<p>{score.method}</p>" for score in results.scores) or "nothing"


class HungryReport(GoodReport):
    def render(self, results):
        return f"{super().render(results)} {results.scores[0].method!r:.3}"


# --- executors ---


class Child(Running):
    """A process of this machine."""

    where = "here"
    log_mode = "ab"

    def __init__(self, order):
        with order.log.open(self.log_mode) as log:
            self.process = subprocess.Popen(order.command, stdout=log, stderr=log, start_new_session=True)

    def poll(self):
        return self.process.poll()

    def stop(self, at_once=False):
        self.process.send_signal(signal.SIGKILL if at_once else signal.SIGINT)


class GoodExecutor(Executor):
    running = Child
    slots = 2
    detaches = True
    detached = []
    """Kept until the end: a process that nobody holds while it runs is warned of."""

    def __init__(self, options):
        super().__init__(options)
        self.started = []

    def start(self, orders, detach=False):
        started = [self.running(order) for order in orders]
        (self.detached if detach else self.started).extend(started)
        return started

    def close(self):
        self.end(self.started)

    def end(self, started):
        for running in started:
            running.process.kill()
            running.process.wait()


def executor(**changes):
    """An executor of processes that are otherwise like those of `GoodExecutor`."""
    return type("Of", (GoodExecutor,), {"running": type("One", (Child,), changes)})


class YesExecutor(GoodExecutor):
    slots = True


FlatExecutor = executor(poll=lambda self: self.process.poll() and 1)
HastyExecutor = executor(poll=lambda self: 0)
EmptyingExecutor = executor(log_mode="wb")
LostExecutor = executor(where="")
HardExecutor = executor(stop=lambda self, at_once=False: self.process.kill())
SoftExecutor = executor(stop=lambda self, at_once=False: self.process.send_signal(signal.SIGINT))


class OnceExecutor(GoodExecutor):
    def __init__(self, options):
        super().__init__(options)
        self.known = {}

    def start(self, orders, detach=False):
        new = [order for order in orders if order.job not in self.known]
        self.known |= zip((order.job for order in new), super().start(new, detach), strict=True)
        return [self.known[order.job] for order in orders]


class EndingExecutor(GoodExecutor):
    def close(self):
        self.end(self.started + self.detached)


# --- options ---


class TypeErrorOptions(Options):
    main: str = option("mlp", "architecture")

    @pydantic.field_validator("main")
    @classmethod
    def _check(cls, value):
        return value + None if value == "?" else value


class RaisingOptionsPool(GoodPool):
    Options = TypeErrorOptions


class UndescribedPool(GoodPool):
    class Options(Options):
        share: float = 0.5


class OneWayPool(GoodPool):
    class Options(Options):
        share: float = option(0.5, "a share")

        @pydantic.field_validator("share")
        @classmethod
        def _halve(cls, value):
            return value / 2


class VersionlessPool(GoodPool):
    version = "one"


class RefusingDataset(GoodDataset):
    def load(self, root):
        raise DataError("not here")


# --- trackers ---


class GoodTracker(Tracker):
    """Remembers the losses of each cell."""

    def __init__(self, options):
        super().__init__(options)
        self.losses = {}

    def step(self, cell, iteration, scalars):
        self.losses.setdefault(cell["key"], []).append(scalars["loss"])


class FiniteTracker(GoodTracker):
    def step(self, cell, iteration, scalars):
        assert all(value == value for value in scalars.values()), "a loss is NaN"


class SingleTracker(GoodTracker):
    """Knows one cell at a time."""

    def step(self, cell, iteration, scalars):
        super().step(cell, iteration, scalars)
        assert len(self.losses) == 1, "another cell is not finished"


class HastyTracker(GoodTracker):
    def close(self):
        assert self.losses, "nothing to close"


# --- metrics ---


class GoodMetric(Metric):
    """The mean of all logits of the scored images, and of the noise that it adds to them."""

    def measure(self, network, problem, streams):
        logits = logits_for(network, problem, problem.score.images)
        noise = torch.rand((), generator=streams.generator("noise"))
        return {"all": float(logits.mean()), "noise": float(noise)}


class NamelessMetric(GoodMetric):
    def measure(self, network, problem, streams):
        return {"noise": 1.0}


class CountingMetric(GoodMetric):
    """Its parts differ from student to student."""

    def measure(self, network, problem, streams):
        mean = float(logits_for(network, problem, problem.score.images).mean())
        return {"all": mean, f"mean-{hash(mean)}": 1.0}


class GlobalMetric(GoodMetric):
    def measure(self, network, problem, streams):
        return {"all": float(torch.rand(()))}


class TrainingMetric(GoodMetric):
    """Moves the weights."""

    def measure(self, network, problem, streams):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1)
        return super().measure(network, problem, streams)


class InPlaceMetric(GoodMetric):
    def measure(self, network, problem, streams):
        problem.score.images.bitwise_xor_(1)
        return {"all": 1.0}


class ColourMetric(GoodMetric):
    def measure(self, network, problem, streams):
        assert problem.shape[0] == 1, "these images are not grey"
        return {"all": 1.0}


class StrictMetric(GoodMetric):
    def measure(self, network, problem, streams):
        measured = super().measure(network, problem, streams)
        assert all(value == value for value in measured.values()), "a logit is NaN"
        return measured


class NegativeMetric(GoodMetric):
    def work(self, problem):
        return -1.0
