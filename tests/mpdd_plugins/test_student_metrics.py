"""What is measured of students beside the accuracy: closed forms, and small networks whose answers are known."""

import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from harness import DataError, Metric, Network, Split, Streams, UsageError, logits_for
from harness.plugins.discovery import plugins
from harness.testing.small import small_problem
from mpdd_plugins.metrics.class_accuracy import accuracy_by_class
from mpdd_plugins.metrics.corruptions import BLUR, CONTRAST, CORRUPTIONS, JPEG, NOISE, PIXELATE
from mpdd_plugins.metrics.ece import expected_calibration_error
from mpdd_plugins.metrics.membership import membership_advantage


class Linear(Network):
    """Logits that are a linear function of the pixels."""

    def __init__(self, weight):
        super().__init__()
        self.classifier = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.classifier.weight.data = weight

    def features(self, images):
        return images.flatten(1)


@pytest.fixture
def problem():
    return small_problem()


@pytest.fixture
def network(problem):
    weight = torch.randn(3, math.prod(problem.shape), generator=torch.Generator().manual_seed(1)) / 10
    return Linear(weight).eval()


def metric(name) -> Metric:
    return plugins().registry.resolve("metric", name).make()


def measure(name, network, problem, seed=0):
    return metric(name).measure(network, problem, Streams(seed))


# --- calibration and classes ------------------------------------------------------------------------------------------


def test_the_calibration_error_of_two_bins_by_hand():
    # Confidences 0.8, 0.8 (one right: |0.5 - 0.8|) and 0.6 (right: |1 - 0.6|), in bins of a tenth.
    probabilities = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6]])
    error = expected_calibration_error(probabilities.log(), torch.tensor([0, 1, 1]), 10)
    assert error == pytest.approx(2 / 3 * 0.3 + 1 / 3 * 0.4, abs=1e-6)
    # In a single bin, right and wrong answers meet: 2/3 right at a mean confidence of 2.2/3.
    assert expected_calibration_error(probabilities.log(), torch.tensor([0, 1, 1]), 1) == pytest.approx(
        0.2 / 3, abs=1e-6
    )


def test_a_certain_student_is_as_badly_calibrated_as_it_is_wrong(problem):
    right = functional.one_hot(problem.score.labels, 3) * 1e4
    assert expected_calibration_error(right, problem.score.labels, 15) == 0
    assert expected_calibration_error(right.roll(1, 1), problem.score.labels, 15) == 1


def test_no_calibration_error_of_outputs_that_are_not_finite():
    assert math.isnan(expected_calibration_error(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]), 15))


def test_accuracies_by_class_and_a_class_without_images():
    logits = functional.one_hot(torch.tensor([0, 0, 1, 0]), 3).float()
    shares = accuracy_by_class(logits, torch.tensor([0, 0, 1, 1]), 3)
    assert shares[:2].tolist() == [1.0, 0.5]
    assert shares[2].isnan()


def test_the_mean_over_equal_classes_is_the_accuracy(network, problem):
    parts = measure("class-accuracy", network, problem)
    predicted = logits_for(network, problem, problem.score.images).argmax(1)
    assert parts["all"] == pytest.approx(float((predicted == problem.score.labels).double().mean()))
    assert set(parts) == {"all", "a", "b", "c"}


def test_classes_whose_names_cannot_be_typed_stand_by_their_numbers(network, problem):
    object.__setattr__(problem, "classes", ("a cat", "b", "c"))
    assert set(measure("class-accuracy", network, problem)) == {"all", "0", "1", "2"}


# --- corruptions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_higher_severity_changes_images_more(kind):
    # Smooth images, as photos are: of noise, pixelation leaves nothing at any severity.
    small = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    pixels = (255 * functional.interpolate(small, 32, mode="bilinear")).to(torch.uint8)
    distances = []
    for severity in (1, 2, 3, 4, 5):
        changed = CORRUPTIONS[kind](pixels, severity, Streams(0).generator("x"))
        assert (changed.shape, changed.dtype) == (pixels.shape, torch.uint8)
        distances.append(float((changed.float() - pixels.float()).square().mean()))
    assert distances == sorted(distances)
    assert 0 < distances[0] < distances[4]


def test_noise_has_the_standard_deviation_of_cifar_10_c():
    grey = torch.full((50, 1, 32, 32), 128, dtype=torch.uint8)
    for severity, std in enumerate(NOISE, 1):
        noisy = CORRUPTIONS["noise"](grey, severity, Streams(0).generator("x"))
        assert float(noisy.float().std()) == pytest.approx(255 * std, rel=0.02)


def test_contrast_keeps_the_mean_and_shrinks_the_deviation(pixels):
    changed = CORRUPTIONS["contrast"](pixels, 5, Streams(0).generator("x")).float()
    assert torch.allclose(changed.mean((2, 3)), pixels.float().mean((2, 3)), atol=0.05)
    assert torch.allclose(changed.std((2, 3)), CONTRAST[4] * pixels.float().std((2, 3)), rtol=0.01)


def test_blur_spreads_a_point_as_a_gaussian():
    point = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    point[0, 0, 16, 16] = 255
    blurred = CORRUPTIONS["blur"](point, 5, Streams(0).generator("x"))[0, 0].double()
    assert blurred[16, 16] / blurred[16, 17] == pytest.approx(math.exp(0.5 / BLUR[4] ** 2), rel=0.05)
    assert blurred.sum() == pytest.approx(255, rel=0.05)


def test_an_even_image_is_not_changed_by_blur_contrast_or_pixelation():
    even = torch.full((2, 1, 28, 28), 77, dtype=torch.uint8)
    for kind in ("blur", "contrast", "pixelate"):
        assert torch.equal(CORRUPTIONS[kind](even, 5, Streams(0).generator("x")), even)


def test_pixelation_and_jpeg_are_pillows(pixels):
    image = Image.fromarray(pixels[0].numpy().transpose(1, 2, 0))
    side, file = int(32 * PIXELATE[4]), io.BytesIO()
    small = image.resize((side, side), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    image.save(file, "JPEG", quality=JPEG[4])
    for kind, wanted in (("pixelate", small), ("jpeg", Image.open(file))):
        changed = CORRUPTIONS[kind](pixels, 5, Streams(0).generator("x"))[0]
        assert np.array_equal(changed.numpy().transpose(1, 2, 0), np.asarray(wanted))


def test_the_mean_is_over_kinds_and_severities(network, problem):
    parts = measure("corrupted[kinds=noise+contrast,severities=5+1]", network, problem)
    assert set(parts) == {"all", "noise", "contrast", "noise-1", "noise-5", "contrast-1", "contrast-5"}
    assert parts["noise"] == pytest.approx((parts["noise-1"] + parts["noise-5"]) / 2)
    assert parts["all"] == pytest.approx((parts["noise"] + parts["contrast"]) / 2)
    assert parts["noise-5"] == measure("corrupted[kinds=noise,severities=5]", network, problem)["noise-5"]


def test_the_order_of_kinds_and_severities_makes_no_other_metric():
    registry = plugins().registry
    names = [
        str(registry.resolve("metric", f"corrupted[kinds={kinds},severities=5+1]"))
        for kinds in ("noise+blur", "blur+noise")
    ]
    assert names == ["corrupted[kinds=noise+blur,severities=1+5]"] * 2


def test_pictures_of_other_channels_are_refused_for_kinds_through_a_file():
    problem = small_problem(shape=(2, 16, 16))
    with pytest.raises(DataError, match=re.escape("ask for corrupted[kinds=noise+blur+contrast]")):
        metric("corrupted").check(problem)
    metric("corrupted[kinds=noise+blur+contrast]").check(problem)


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_fgsm_finds_the_exact_robustness_of_a_linear_student():
    """Of two classes, the margin of a linear student falls by strength / 255 / std times the l1 norm of its weights."""
    problem = small_problem(classes=2)
    # Mid-grey images, so that no pixel value meets an end of its range.
    object.__setattr__(problem.score, "images", (problem.score.images // 4 + 96))
    weight = torch.randn(2, math.prod(problem.shape), generator=torch.Generator().manual_seed(1)) / 10
    network = Linear(weight).eval()
    difference = weight[1] - weight[0]
    logits = logits_for(network, problem, problem.score.images)
    margins = (logits[:, 1] - logits[:, 0]) * (2 * problem.score.labels - 1)
    for strength in (1, 4, 16, 64):
        lost = strength / 255 / 0.25 * float(difference.abs().sum())
        wanted = float((margins > lost).double().mean())
        assert measure(f"fgsm[strength={strength}]", network, problem)["all"] == pytest.approx(wanted)
        pgd = f"pgd[strength={strength},steps=20,step_size={strength}]"
        assert measure(pgd, network, problem)["all"] == pytest.approx(wanted)


def test_one_step_from_the_image_itself_is_fgsm(network, problem):
    fgsm = measure("fgsm[strength=6]", network, problem)
    assert measure("pgd[strength=6,steps=1,step_size=6,start=false]", network, problem) == fgsm


def test_attacked_images_stay_within_strength_and_range(problem):
    images = problem.score.images.float()
    attack = metric("pgd[strength=3,steps=5,step_size=2]")
    moved = attack.attacked(images, lambda now: torch.ones_like(now), Streams(0).generator("x"))
    assert float((moved - images).abs().max()) <= 3
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 255
    assert torch.equal(moved, (images + 3).clamp(max=255))


# --- membership -------------------------------------------------------------------------------------------------------


def test_the_advantage_by_hand():
    members, others = torch.tensor([0.1, 0.2, 0.9]).double(), torch.tensor([0.3, 0.5, 0.8, 1.0]).double()
    # At the mean 0.4: two of three members, and one of four others.
    assert membership_advantage(members, others, "mean") == pytest.approx(2 / 3 - 1 / 4)
    assert membership_advantage(members, others, "best") == pytest.approx(2 / 3)
    assert membership_advantage(others, members, "best") == pytest.approx(1 / 12)


def test_equal_losses_give_nothing_away():
    losses = torch.linspace(0, 1, 7).double()
    assert membership_advantage(losses, losses.flip(0), "mean") == 0
    assert membership_advantage(losses, losses, "best") == 0
    assert math.isnan(membership_advantage(losses, torch.tensor([math.nan]).double(), "mean"))


def test_a_student_that_is_sure_of_its_training_images_alone_gives_all_away(problem):
    """Bright images are members, dark ones are not, and the student knows the class of bright images only."""
    images, labels = torch.zeros_like(problem.score.images), problem.score.labels
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label] = 255
    object.__setattr__(problem, "train", Split(images, labels))
    object.__setattr__(problem, "score", Split(images.flip(2), labels))
    weight = torch.zeros(3, *problem.shape)
    for label in range(3):
        weight[label, :, label] = 1.0
    network = Linear(weight.flatten(1)).eval()
    assert measure("membership", network, problem)["all"] == 1.0
    assert measure("membership[threshold=best]", network, problem)["all"] == 1.0


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("corrupted[kinds=fog]", "'fog' is no kind of corruption: there is noise, blur, contrast, pixelate, jpeg"),
        ("corrupted[severities=6]", "'6' is no severity: there is 1, 2, 3, 4, 5"),
        ("pgd[steps=0]", "greater than or equal to 1"),
        ("fgsm[strength=256]", "less than or equal to 255"),
    ],
)
def test_bad_options_are_refused_in_a_line(name, fault):
    with pytest.raises(UsageError, match=re.escape(fault)) as error:
        metric(name)
    assert "\n" not in str(error.value)
