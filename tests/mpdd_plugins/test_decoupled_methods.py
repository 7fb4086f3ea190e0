"""RDED and SRe2L: golden values of the published code, closed forms, small runs and what they refuse."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from golden_inputs import DATA, assert_golden, formula
from studies import ddbench, small_words
from torch import nn
from torch.nn import functional

from harness import DataError, Network, Recipe, Streams
from harness.plugins.discovery import plugins
from harness.testing.small import small_problem
from harness.types.data.preprocessing import Normalize
from mpdd_plugins.methods.decoupled.patches import (
    PatchOptions,
    chosen_patches,
    mosaics,
    patch_losses,
    random_crops,
    realistic_images,
)
from mpdd_plugins.methods.decoupled.sre2l import RELABEL, clipped, cosine, recorded_inputs, recover_losses

GOLDEN = json.loads((DATA / "decoupled_methods.json").read_text())["sre2l"]
BATCH_NORM = "convnet[width=4,depth=2,norm=batch]"
TEACHERS = "teacher-epochs=1"


def golden_network():
    """The network of the golden values, in evaluation mode and float64."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).double()  # fmt: skip
    k = 600
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(formula(k, layer.weight.shape, -0.4, 0.4))
                k += 1
            elif isinstance(layer, nn.BatchNorm2d):
                parts = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
                ranges = ((0.8, 1.2), (-0.1, 0.1), (-0.5, 0.5), (0.5, 1.5))
                for offset, (part, (low, high)) in enumerate(zip(parts, ranges, strict=True)):
                    part.copy_(formula(k + offset, part.shape, low, high))
                k += 4
            elif isinstance(layer, nn.Linear):
                layer.weight.copy_(formula(k, layer.weight.shape, -1, 1))
                layer.bias.copy_(formula(k + 1, layer.bias.shape, -0.1, 0.1))
    return network.eval()


# --- SRe2L ------------------------------------------------------------------------------------------------------------


def test_the_recover_loss_and_its_gradient_are_those_of_the_published_code():
    golden = GOLDEN["recover loss"]
    images = formula(650, (3, 3, 8, 8), -2, 2).requires_grad_()
    entropy, distance = recover_losses(golden_network(), images, torch.arange(3))
    first, second = golden["r of each batch norm"]
    assert float(entropy.detach()) == pytest.approx(golden["cross-entropy"], rel=1e-9)
    assert float(distance.detach()) == pytest.approx(10 * first + second, rel=1e-9)
    total = entropy + 0.01 * distance
    assert float(total.detach()) == pytest.approx(golden["total = ce + 0.01 (10 r1 + r2)"], rel=1e-9)
    assert_golden(torch.autograd.grad(total, images)[0], golden["grad"])


def test_pixels_are_clipped_to_the_range_of_cifar():
    golden = GOLDEN["clip to the pixel range of cifar"]
    images = formula(651, (2, 3, 4, 4), -4, 4)
    assert_golden(clipped(images, Normalize.named("cifar10", 3)), golden["images"], 1e-6)


def test_the_rate_follows_a_cosine():
    for iteration, rate in GOLDEN["learning rate .25, cosine over 1000"].items():
        assert cosine(0.25, int(iteration), 1000) == pytest.approx(rate, rel=1e-9)


def test_images_with_the_running_statistics_have_no_distance_and_no_gradient_of_it():
    network, images = golden_network(), formula(650, (3, 3, 8, 8), -2, 2)
    with torch.no_grad(), recorded_inputs(network) as inputs:
        network(images)
    for layer, features in inputs[:1]:
        layer.running_mean, layer.running_var = features.mean((0, 2, 3)), features.var((0, 2, 3), correction=0)
    alone = network[:2]
    leaf = images.clone().requires_grad_()
    _, distance = recover_losses(nn.Sequential(*alone, nn.AdaptiveAvgPool2d(1), nn.Flatten()), leaf, torch.arange(3))
    assert float(distance.detach()) == 0
    assert not torch.autograd.grad(distance, leaf)[0].any()


def test_the_hooks_are_gone_afterwards():
    network = golden_network()
    recover_losses(network, formula(650, (3, 3, 8, 8)), torch.arange(3))
    assert not any(module._forward_pre_hooks for module in network.modules())


def run(data, store, method, *words, **changes):
    how = {"method": method, "pool": f"single[main={BATCH_NORM}]", "iterations": 3, "students": 1}
    return ddbench("run", *small_words(data, store, **{**how, **changes}), *words)


@pytest.mark.parametrize("options", ["", "preset=sre2l++,candidates=6,crops=2,", "draws=2,teachers=2,"])
def test_a_run_of_sre2l(data, tmp_path, options):
    result = run(data, tmp_path / "store", f"sre2l[{options}{TEACHERS}]")
    assert result.exit_code == 0, result.output
    assert "bn_distance" in result.stderr


def test_a_network_without_batch_norm_is_refused_in_a_line_before_any_work(data, tmp_path):
    result = run(data, tmp_path / "store", "sre2l", pool="single[main=mlp[width=8]]")
    assert result.exit_code == 2
    line = "sre2l through single[main=mlp[width=8]] is not applicable: mlp[width=8] has no batch norm"
    assert line in result.stderr
    assert not (tmp_path / "store").exists()


def test_the_remedy_for_networks_that_a_pool_adds_is_to_say_which(data, tmp_path):
    """The main architecture has batch norm already."""
    store, main = tmp_path / "store", f"main={BATCH_NORM}"
    added = run(data, store, "sre2l", "--dry-run", pool=f"main-similar[{main}]")
    assert added.exit_code == 2
    assert (
        "convnet[width=4,depth=2], which the pool adds unless others=... says what to draw, has no batch norm, whose "
        "statistics the images are to have: choose those with norm=batch\n"
    ) in added.stderr
    typed = run(data, store, "sre2l", "--dry-run", pool=f"main-similar[{main},others=lenet]")
    assert "is not applicable: lenet has no batch norm" in typed.stderr
    of_main = run(data, store, "sre2l", "--dry-run", pool="main-similar[main=convnet[width=4]]")
    assert "is not applicable: convnet[width=4] has no batch norm" in of_main.stderr
    others = "others=convnet[width=4,depth=2,norm=batch,act=swish]"
    assert run(data, store, f"sre2l[{TEACHERS}]", "--dry-run", pool=f"main-similar[{main},{others}]").exit_code == 0


def test_other_pools_of_the_plan_are_carried_out_all_the_same(data, tmp_path):
    result = run(data, tmp_path / "store", f"sre2l[{TEACHERS}]", "--pool", "single[main=mlp[width=8]]")
    assert result.exit_code == 0, result.output
    assert "not applicable: mlp[width=8] has no batch norm" in result.stdout


def test_a_preset_is_short_for_its_options():
    registry = plugins().registry
    short, long = registry.resolve("method", "sre2l[preset=sre2l++]"), registry.resolve("method", "sre2l")
    assert (short.options.init, short.options.view) == ("patches", "crop+flip")
    assert (long.options.init, long.options.view) == ("noise", "none")
    assert str(short) == "sre2l[preset=sre2l++]"
    assert registry.resolve("method", "sre2l[preset=sre2l++,init=noise]").options.init == "noise"


def test_the_help_of_a_preset_says_what_it_is_not():
    text = " ".join(ddbench("methods", "show", "sre2l").stdout.split())
    assert "Adam, lr 0.001, weight decay 1e-4, batch 512" in text
    assert RELABEL in text.replace(" ", "")
    options = plugins().registry.resolve("evaluator", RELABEL).options
    assert options.recipe(True, 10, 10) == Recipe(300, 1e-3, "adamw", "cosine", weight_decay=0.01, batch=16)
    assert (options.temperature, options.teacher_mode, options.alpha) == (20, "train", 1)


@pytest.mark.parametrize(("operations", "mirrored"), [("crop+flip", True), ("crop+scale", False)])
def test_teachers_see_mirrored_images_only_of_data_that_is_mirrored(operations, mirrored):
    """Of images that are brighter to the right, by a view of crops alone."""
    problem = dataclasses.replace(small_problem(), augmentations={"dsa": operations})
    task = SimpleNamespace(problem=problem, ipc=1, streams=Streams(0), iterations=9)
    method = plugins().registry.resolve("method", "sre2l[preset=sre2l++,roll=0]").make(task)
    images = torch.linspace(0, 1, 16).expand(3, *problem.shape)
    seen = torch.cat([method._seen(images, iteration, 0) for iteration in range(9)])
    assert bool((seen[..., 0] > seen[..., -1]).any()) is mirrored
    assert method.settings() == ({} if mirrored else {"view": "crop"}), "sets that were mirrored have other keys"


@pytest.mark.parametrize("options", ["candidates=6", "init=noise,preset=sre2l++,factor=2,scale=0.5"])
def test_options_of_patches_without_patches_are_refused(data, tmp_path, options):
    result = run(data, tmp_path / "store", f"sre2l[{options}]", "--dry-run")
    assert result.exit_code == 2
    unused = "candidates" if "candidates" in options else "factor, scale"
    assert f"images from noise have no patches: leave out {unused}, or set init=patches\n" in result.stderr


@pytest.mark.parametrize("method", ["sre2l", "rded"])
def test_more_draws_than_there_are_teachers_are_refused(data, tmp_path, method):
    """The same network would be averaged with itself."""
    result = run(data, tmp_path / "store", f"{method}[draws=3]", "--dry-run")
    assert result.exit_code == 2
    assert (
        f"{method}[draws=3] through single[main={BATCH_NORM}] is not applicable: of draws=3 networks at most 1 can "
        "differ, and the others would count again: set teachers=3 or draws=1\n"
    ) in result.stderr
    assert run(data, tmp_path / "store", f"{method}[draws=3,teachers=3]", "--dry-run").exit_code == 0


# --- RDED -------------------------------------------------------------------------------------------------------------


class Brightness(Network):
    """Logits of three classes: the first is likelier, the brighter the image is."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(1, 3, bias=False)
        self.classifier.weight.data = torch.tensor([[1.0], [0.0], [0.0]])

    def features(self, images):
        return images.flatten(1).mean(1, keepdim=True)


@pytest.fixture
def problem():
    return small_problem()


def options(**values):
    return PatchOptions(**{"candidates": 12, "crops": 3, **values})


def test_the_patches_of_lowest_loss_are_chosen(problem):
    """A teacher that likes bright images for the first class gets the brightest crops, in order."""
    teachers = [Brightness().eval()]
    streams = Streams(0)
    chosen = chosen_patches(options(), teachers, problem, 0, 4, streams)
    brightness = chosen.mean((1, 2, 3)).tolist()
    assert brightness == sorted(brightness, reverse=True)
    every = patch_losses(teachers, problem, chosen, 0)
    assert torch.equal(every, every.sort().values)


def test_of_each_image_one_crop_competes(problem):
    """With crops of the whole image, no image is chosen twice, and they are real ones."""
    chosen = chosen_patches(options(scale=1.0), [Brightness().eval()], problem, 1, 12, Streams(0))
    real = problem.train.images[problem.of_class[1]].float() / 255
    distances = torch.cdist(chosen.flatten(1), real.flatten(1))
    assert distances.min(1).values.max() < 1e-4
    assert sorted(distances.argmin(1).tolist()) == list(range(12))


def test_crops_are_squares_of_at_least_the_least_share():
    images = torch.rand(200, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    crops = list(random_crops(images, 1.0, (20, 20), Streams(0).generator("x")))
    assert torch.equal(torch.cat(crops), images)
    small = torch.cat(list(random_crops(images, 0.08, (10, 10), Streams(0).generator("x"))))
    assert small.shape == (200, 1, 10, 10)
    assert 0 <= small.min() <= small.max() <= 1


@pytest.mark.parametrize(("size", "heights"), [((4, 4), (2, 2)), ((5, 6), (3, 2))])
def test_a_mosaic_has_the_best_patches_in_all_images(size, heights):
    """Cell (i, j) of image k holds patch (i * 2 + j) * ipc + k; the first cells have the pixel left over."""
    patches = torch.arange(8.0)[:, None, None, None].expand(8, 1, size[0] // 2, size[1] // 2)
    images = mosaics(patches, 2, 2, (1, *size))
    assert images.shape == (2, 1, *size)
    for image in range(2):
        for row, (top, height) in enumerate(((0, heights[0]), (heights[0], heights[1]))):
            for column in range(2):
                left = column * (size[1] // 2)
                cell = images[image, 0, top : top + height, left : left + size[1] // 2]
                assert torch.equal(cell, torch.full_like(cell, (row * 2 + column) * 2 + image))


def test_several_teachers_count_by_their_mean(problem):
    class Dark(Brightness):
        def features(self, images):
            return -super().features(images)

    first, second = Brightness().eval(), Dark().eval()
    patches = torch.rand(5, *problem.shape, generator=torch.Generator().manual_seed(1))
    mean = patch_losses([first, second], problem, patches, 0)
    each = [patch_losses([teacher], problem, patches, 0) for teacher in (first, second)]
    assert torch.allclose(mean, (each[0] + each[1]) / 2)


def test_small_patches_lie_in_the_middle_of_the_mean_colour(problem):
    seen = []

    def teacher(images):
        seen.append(images)
        return torch.zeros(len(images), 3)

    patch_losses([teacher], problem, torch.ones(2, 1, 8, 8), 0)
    (images,) = seen
    inside = functional.pad(torch.ones(8, 8, dtype=torch.bool), (4, 4, 4, 4))
    assert (images[:, 0, ~inside] == 0).all()
    assert torch.allclose(images[:, 0, inside], torch.tensor((1 - 0.4) / 0.25))


def test_too_few_images_for_the_patches_are_named(problem):
    with pytest.raises(DataError, match="class 'a' has 12 training images, and 16 patches are needed: use a smaller"):
        realistic_images(options(factor=2), [Brightness().eval()], problem, 4, Streams(0))


@pytest.mark.parametrize("more", ["", "factor=2,", "draws=2,teachers=2,"])
def test_a_run_of_rded_under_plain_and_kd(data, tmp_path, more):
    method = f"rded[{more}candidates=6,crops=2,{TEACHERS}]"
    pool = f"total-random[of={BATCH_NORM}+mlp[width=8]]"
    result = run(data, tmp_path / "store", method, "-e", "kd[epochs=2,teacher=mlp[width=8]]", pool=pool)
    assert result.exit_code == 0, result.output


def test_a_plan_knows_the_teachers_of_every_draw(data, tmp_path):
    """All teachers are cells of the plan, and none is made in passing."""
    method = f"rded[draws=3,candidates=6,crops=2,{TEACHERS}]"
    pool = f"total-random[of={BATCH_NORM}+mlp[width=8]+convnet[width=4,depth=1]]"
    planned = run(data, tmp_path / "store", method, "--dry-run", pool=pool)
    count = planned.stdout.count("missing  artifact")
    assert count > 1
    done = run(data, tmp_path / "store", method, pool=pool)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("done     real network") == count


def test_one_teacher_is_shared_by_both_methods_and_soft_labels(data, tmp_path):
    soft = f"soft-labels[epochs=1,teacher={BATCH_NORM},{TEACHERS}]"
    result = run(data, tmp_path / "store", f"rded[candidates=6,crops=2,{TEACHERS}]",
                 "--method", f"sre2l[{TEACHERS}]", evaluator=soft)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stderr.count("done     real network") == 1


def test_rded_says_nothing_before_its_step(problem):
    task = SimpleNamespace(problem=problem, ipc=1, streams=Streams(0), iterations=1)
    method = plugins().registry.resolve("method", "rded").make(task)
    with pytest.raises(RuntimeError, match="which is not done yet"):
        method.distilled()
