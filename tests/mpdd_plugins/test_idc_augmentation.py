"""IDC's augmentation: golden values of its authors' code, order, draws, siamese pairs, gradients, CutMix."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness import LabelledAugment
from harness.datasets.traits import KNOWN_TRAITS
from mpdd_plugins.augmentations import dsa, idc
from mpdd_plugins.augmentations.idc import OPERATIONS, WARPS, check_strategy, idc_augmentation, own_strategy, per_image
from tests.toys import toy_problem

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "idc_augmentation.json").read_text())
SHAPE = (3, 16, 16)
OF_IMAGES = [name for name in OPERATIONS if name != "cutmix"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def formula(k, shape, low, high):
    """The inputs of the golden values."""
    i = torch.arange(torch.Size(shape).numel())
    u = ((31 * i**2 + 101 * (2 * k + 1) * i + 17 * k**2 + 13 * k + 7) % 10007).double() / 10007
    return (low + (high - low) * u).view(shape)


def images(shape=SHAPE, count=5, dtype=torch.float64, seed=1):
    return 3 * torch.randn(count, *shape, generator=generator(seed), dtype=dtype)


def assert_golden(actual, name):
    golden = GOLDEN[name]["images"]
    flat = actual.flatten()
    exact = {"rel": 0, "abs": 1e-9 * float(flat.abs().max())}
    assert list(actual.shape) == golden["shape"]
    assert flat[:8].tolist() == pytest.approx(golden["first"], **exact)
    for at, value in golden["at"].items():
        assert float(flat[int(at)]) == pytest.approx(value, **exact)
    assert float(flat.norm()) == pytest.approx(golden["norm"], rel=1e-9)
    assert float(flat.sum()) == pytest.approx(golden["sum"], rel=1e-9, abs=1e-8)


@pytest.fixture
def drawn(monkeypatch):
    """Gives uniform numbers and whole numbers as they are listed."""

    def fix(uniform=0.7, whole=()):
        whole = iter(whole)
        monkeypatch.setattr(dsa, "_uniform", lambda count, _: torch.full((count,), uniform, dtype=torch.float64))
        monkeypatch.setattr(dsa, "_integers", lambda low, high, count, _: torch.full((count,), next(whole)))

    return fix


X = (240, (3, 3, 16, 16), -2, 2)


# --- golden values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_warps_are_those_of_idcs_code(name, count, drawn):
    drawn()
    assert_golden(per_image(name, SHAPE, count, generator())(formula(*X)), f"augment {name}")


@pytest.mark.parametrize("count", [1, 3])
def test_crop_and_cutout_are_those_of_idcs_code(count, drawn):
    # Its shift is that of the sampled pixels, ours that of the content: the draw is symmetric.
    shift = [-way for way in GOLDEN["augment crop"]["inputs"]["shift"]]
    drawn(whole=[*shift, *GOLDEN["augment cutout"]["inputs"]["offset"]])
    assert_golden(per_image("crop", SHAPE, count, generator())(formula(*X)), "augment crop")
    assert_golden(per_image("cutout", SHAPE, count, generator())(formula(*X)), "augment cutout")


@pytest.mark.parametrize(("place", "name"), [(0, "brightness"), (1, "saturation"), (2, "contrast")])
def test_colours_are_those_of_idcs_code(place, name, drawn):
    drawn()
    module, params = dsa.OPERATIONS["color"](SHAPE, 3, generator())[place]
    assert_golden(module(formula(*X), params=dict(params)), f"augment {name}")


@pytest.mark.parametrize("strategy", ["color+crop+cutout", "cutout+crop+color"])
def test_the_whole_chain_is_that_of_idcs_code(strategy, drawn):
    name = "augment color_crop_cutout, whole chain"
    fixed = GOLDEN[name]["inputs"]
    drawn(fixed["uniform"], [*(-way for way in fixed["crop"]), *fixed["cutout"]])
    assert_golden(per_image(strategy, SHAPE, 1, generator())(formula(*X)), name)


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    calls = []
    stages = {name: lambda *words, name=name: calls.append(name) or [] for name in dsa.OPERATIONS}
    monkeypatch.setattr(dsa, "OPERATIONS", stages)
    return calls


@given(names=st.lists(st.sampled_from(OF_IMAGES), min_size=1, unique=True), seed=st.integers(0, 1000))
def test_all_are_applied_in_order_but_of_the_warps_one(names, seed):
    calls, original = [], dict(dsa.OPERATIONS)
    stages = {name: lambda *words, name=name: calls.append(name) or [] for name in original}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dsa, "OPERATIONS", stages)
        per_image("+".join(names), SHAPE, 4, generator(seed))
    warps = [name for name in calls if name in WARPS]
    assert len(warps) == bool(set(names) & set(WARPS))
    assert set(calls) - set(WARPS) == set(names) - set(WARPS)
    assert set(warps) <= set(names)
    assert calls == sorted(calls, key=OPERATIONS.index)


def test_each_warp_is_drawn_equally_often(seen):
    for seed in range(1500):
        per_image("flip+color+crop+scale+rotate", SHAPE, 4, generator(seed))
    counts = [seen.count(name) for name in WARPS]
    assert sum(counts) == seen.count("flip") == seen.count("color") == 1500
    assert stats.chisquare(counts).pvalue > 1e-4


def test_operations_draw_independently():
    """IDC's code seeds anew before each operation where a seed is passed; here no draw depends on another."""
    transform, plain = (per_image(name, SHAPE, 400, generator()) for name in ("flip+color", "color"))
    batch = images(count=1).expand(400, -1, -1, -1)
    assert not torch.allclose(transform(batch).mean((1, 2, 3)), plain(batch).mean((1, 2, 3)))


def test_a_siamese_pair_gets_the_same_transform():
    for seed in range(6):
        transform = idc.siamese("flip+color+crop+scale+rotate+cutout", SHAPE, generator(seed))
        real, synthetic = images(count=7), images(count=2, seed=9)
        both = transform(torch.cat([real, synthetic]))
        assert torch.equal(transform(real), both[:7])
        assert torch.equal(transform(synthetic), both[7:])


@pytest.mark.parametrize("name", ["color", "crop", "scale", "rotate", "cutout"])
def test_in_training_every_image_has_parameters_of_its_own(name):
    copies = images(count=1).expand(12, -1, -1, -1)
    results = idc_augmentation(name, 3)(copies, generator())
    assert len({tuple(result.flatten().tolist()) for result in results}) >= 8


def test_gradients_flow_through_gradients():
    transform = idc.siamese("flip+color+scale+cutout", (3, 6, 6), generator(1))
    batch = (images((3, 6, 6), 2).requires_grad_(),)
    assert torch.autograd.gradcheck(transform, batch)
    assert torch.autograd.gradgradcheck(lambda batch: transform(batch.square()).square(), batch)


@pytest.mark.parametrize("strategy", ["flip+color+crop+scale+rotate+cutout", "color+rotate+cutmix"])
def test_the_global_generator_and_the_batch_are_left_alone(strategy):
    before, batch, augment = torch.get_rng_state(), images(), idc_augmentation(strategy, 5)
    copy = batch.clone()
    labels = (torch.arange(5),) if isinstance(augment, LabelledAugment) else ()
    augment(batch, *labels, generator())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(batch, copy)


# --- CutMix -----------------------------------------------------------------------------------------------------------


def test_cutmix_comes_last_on_half_of_the_batches():
    augment, mixed = idc_augmentation("cutmix+color", 5), 0
    for seed in range(300):
        batch, weights = augment(images(), torch.arange(5), generator(seed))
        stream = generator(seed)
        coloured = per_image("color", SHAPE, 5, stream)(images())
        untouched = torch.equal(batch, coloured)
        assert (batch == coloured).any()
        assert weights.sum(1).tolist() == pytest.approx([1.0] * 5)
        mixed += not untouched
    # A box without a pixel, or a permutation that moves nothing, changes nothing: about one batch in 40.
    assert stats.binomtest(mixed, 300, 0.49).pvalue > 1e-4


def test_without_cutmix_it_is_a_function_of_images():
    augment = idc_augmentation("flip+color", 5)
    assert not isinstance(augment, LabelledAugment)
    assert isinstance(idc_augmentation("cutmix", 5), LabelledAugment)
    batch, weights = idc_augmentation("cutmix", 5)(images(), torch.arange(5), generator(3))
    assert batch.shape == images().shape
    assert weights.shape == (5, 5)


def test_labels_cannot_be_mixed_in_a_pair():
    with pytest.raises(ValueError, match="use it in training only"):
        idc.siamese("color+cutmix", SHAPE, generator())


# --- strategies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (None, None),
        ("none", "none"),
        ("color_crop_cutout_flip_scale_rotate", "flip+color+crop+scale+rotate+cutout"),
        ("cutmix+flip", "flip+cutmix"),
        ("rotate + crop", "crop+rotate"),
    ],
)
def test_strategies_are_read(text, read):
    assert check_strategy(text) == read


@pytest.mark.parametrize(("text", "message"), [("flop", "flop"), ("", "''"), ("flip+", "''"), ("flip+flip", "twice")])
def test_what_is_no_strategy_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        check_strategy(text)


@pytest.mark.parametrize(
    ("name", "channels", "wanted"),
    [
        ("cifar10", 3, "flip+color+crop+scale+rotate+cutmix"),
        ("fashion-mnist", 1, "flip+color+crop+scale+rotate+cutmix"),
        ("svhn", 3, "color+crop+scale+rotate+cutmix"),
        ("mnist", 1, "color+crop+scale+rotate"),
    ],
)
def test_the_sets_own_strategy_is_that_of_idcs_evaluation(name, channels, wanted):
    problem = toy_problem(augmentations=dict(KNOWN_TRAITS[name].augmentations))
    pixels = problem.train.images[:, :1].expand(-1, channels, -1, -1)
    problem = dataclasses.replace(problem, train=dataclasses.replace(problem.train, images=pixels))
    assert problem.shape[0] == channels
    assert own_strategy(problem) == wanted


def test_a_set_may_name_its_own_strategy():
    assert own_strategy(toy_problem(augmentations={"idc": "color", "dsa": "flip"})) == "color"
    assert own_strategy(toy_problem(augmentations={"dsa": "none"})) == "none"
