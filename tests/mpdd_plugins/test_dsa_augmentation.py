"""DSA's augmentation: every parameter's distribution, every operation against its formula, siamese pairs, gradients."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from golden_inputs import GOLDEN, assert_golden, formula
from scipy import stats
from torch.nn import functional

from harness import Problem
from mpdd_plugins.augmentations import dsa
from mpdd_plugins.augmentations.dsa import (
    EVERY,
    OPERATIONS,
    check_strategy,
    dsa_augmentation,
    own_strategy,
    per_image,
    siamese,
)
from tests.toys import toy_problem

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 20, 14)]
MANY = 4000
SURE = 1e-4
"""Below this p-value a distribution is another one; seeds are fixed, so nothing fails by chance."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(shape=(3, 32, 32), count=5, dtype=torch.float64, seed=1):
    return 3 * torch.randn(count, *shape, generator=generator(seed), dtype=dtype)


def drawn(name, shape=(3, 32, 32), count=MANY, seed=0):
    """The parameters of an operation's stages, merged."""
    return [params for _, params in OPERATIONS[name](shape, count, generator(seed))]


def assert_uniform(values, low, high):
    assert low <= float(values.min())
    assert float(values.max()) <= high
    assert stats.kstest(values.double().numpy(), "uniform", args=(low, high - low)).pvalue > SURE


def assert_whole(values, low, high):
    """Uniform over the whole numbers low ... high."""
    counts = torch.bincount((values - low).long(), minlength=high - low + 1)
    assert len(counts) == high - low + 1
    assert stats.chisquare(counts.numpy()).pvalue > SURE


# --- golden values ----------------------------------------------------------------------------------------------------

WHOLE = {"crop": "shifts", "cutout": "centres"}
"""Operations that draw whole numbers, and how their draws are named in the golden values."""


@pytest.mark.parametrize("name", GOLDEN["dsa"])
def test_operations_are_those_of_the_code_of_dsa(name, monkeypatch):
    """Each with a draw for each image, and with the first image's draw for all of them."""
    golden, operation = GOLDEN["dsa"][name], name.partition(",")[0]
    kind = WHOLE.get(operation, "uniform")
    rows = torch.tensor(next(value for key, value in golden.items() if key.startswith(kind)), dtype=torch.float64)
    # Its shift is that of the sampled pixels, ours that of the content: the draw is symmetric.
    rows = iter(-rows if operation == "crop" else rows)
    count = 1 if "siamese" in name else 3
    monkeypatch.setattr(dsa, "_uniform", lambda many, _: next(rows)[:many])
    monkeypatch.setattr(dsa, "_integers", lambda low, high, many, _: next(rows)[:many].long())
    colours = ("brightness", "saturation", "contrast")
    if operation in colours:  # DSA draws all three; the golden values are of each alone
        (draws,) = rows
        monkeypatch.setattr(dsa, "_uniform", lambda many, _: draws[:many])
        stages = [OPERATIONS["color"]((3, 16, 16), count, generator())[colours.index(operation)]]
    else:
        stages = OPERATIONS[operation]((3, 16, 16), count, generator())
    actual = dsa.as_transform(stages)(formula(1300, (3, 3, 16, 16), -2, 2))
    assert_golden(actual, golden["images"])


# --- distributions ----------------------------------------------------------------------------------------------------


def test_color():
    brightness, saturation, contrast = drawn("color")
    assert_uniform(brightness["brightness_factor"] - 1, -0.5, 0.5)
    assert_uniform(saturation["factor"], 0, 2)
    assert_uniform(contrast["factor"], 0.5, 1.5)
    for first, other in (
        (brightness["brightness_factor"], saturation["factor"]),
        (saturation["factor"], contrast["factor"]),
    ):
        assert stats.pearsonr(first.numpy(), other.numpy()).pvalue > SURE


@pytest.mark.parametrize(("shape", "bounds"), [((3, 32, 32), (4, 4)), ((1, 28, 28), (4, 4)), ((3, 20, 14), (3, 2))])
def test_crop(shape, bounds):
    (params,) = drawn("crop", shape)
    for axis, side, bound in ((1, shape[1], bounds[0]), (0, shape[2], bounds[1])):
        shift = -params["theta"][:, axis, 2] * side / 2
        torch.testing.assert_close(shift, shift.round())
        assert_whole(shift.round(), -bound, bound)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 30, 30)])
def test_cutout(shape):
    """Centres are recovered from the boxes where the border has not cut them."""
    (params,) = drawn("cutout", shape)
    for start, size, side in (("ys", "heights", shape[1]), ("xs", "widths", shape[2])):
        box = int(side * 0.5 + 0.5)
        first, length = params[start], params[size]
        assert int(first.min()) == 0
        assert int((first + length).max()) == side
        assert int(length.min()) == box - box // 2, "a centre on the border leaves half of the box"
        assert int(length.max()) == box
        centre = torch.where(first > 0, first + box // 2, length - (box - box // 2))
        assert_whole(centre, 0, side - box % 2)


def test_flip():
    (params,) = drawn("flip")
    assert stats.binomtest(int(params["batch_prob"].sum()), MANY, 0.5).pvalue > SURE


def test_scale():
    (params,) = drawn("scale")
    theta = params["theta"]
    for axis in range(2):
        assert_uniform(theta[:, axis, axis], 1 / 1.2, 1.2)
    assert stats.pearsonr(theta[:, 0, 0].numpy(), theta[:, 1, 1].numpy()).pvalue > SURE
    assert not theta[:, 0, 1:].any()
    assert not theta[:, 1, [0, 2]].any()


def test_rotate():
    (params,) = drawn("rotate")
    theta = params["theta"]
    angle = torch.rad2deg(torch.atan2(theta[:, 1, 0], theta[:, 0, 0]))
    assert_uniform(angle, -15, 15)
    torch.testing.assert_close(angle, 30 * torch.rand(MANY, generator=generator(), dtype=torch.float64) - 15)
    torch.testing.assert_close(theta[:, 0, 0], theta[:, 1, 1])
    torch.testing.assert_close(theta[:, 0, 1], -theta[:, 1, 0])
    torch.testing.assert_close(theta[:, 0, 0].square() + theta[:, 1, 0].square(), torch.ones(MANY, dtype=torch.float64))


@pytest.mark.parametrize("strategy", [EVERY, "color+crop+cutout+scale+rotate", "flip+rotate"])
def test_each_operation_is_drawn_equally_often(strategy, monkeypatch):
    seen = []
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda *words, name=name: seen.append(name) or [])
    for seed in range(1200):
        siamese(strategy, (3, 32, 32), generator(seed))
    assert set(seen) == set(strategy.split("+"))
    assert stats.chisquare([seen.count(name) for name in strategy.split("+")]).pvalue > SURE


# --- formulas ---------------------------------------------------------------------------------------------------------


def applied(name, batch, seed=0):
    """An operation's parameters for each image, and what it makes of the batch."""
    shape, same = tuple(batch.shape[1:]), generator(seed)
    torch.randint(1, (), generator=same)  # the choice among one operation
    params = [params for _, params in OPERATIONS[name](shape, len(batch), same)]
    return params, per_image(name, shape, len(batch), generator(seed))(batch)


def column(values):
    return values.view(-1, 1, 1, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_color_is_brightness_then_saturation_then_contrast(shape):
    batch = images(shape)
    (brightness, saturation, contrast), augmented = applied("color", batch)
    wanted = batch + column(brightness["brightness_factor"] - 1)
    grey = wanted.mean(1, keepdim=True)
    wanted = (wanted - grey) * column(saturation["factor"]) + grey
    mean = wanted.mean((1, 2, 3), keepdim=True)
    wanted = (wanted - mean) * column(contrast["factor"]) + mean
    torch.testing.assert_close(augmented, wanted)
    assert float(augmented.abs().max()) > 3, "nothing is clipped to [0, 1]"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturation_does_nothing_to_grey_images(dtype):
    batch = images((1, 28, 28), dtype=dtype)
    ((_, _), (saturate, params), (_, _)) = OPERATIONS["color"]((1, 28, 28), len(batch), generator())
    assert torch.equal(saturate(batch, params=dict(params)), batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 64, 96)])
@pytest.mark.parametrize("seed", range(6))
def test_crop_moves_whole_pixels_and_leaves_zeros(shape, seed, dtype):
    batch = images(shape, dtype=dtype)
    (params,), augmented = applied("crop", batch, seed)
    height, width = shape[1:]
    for image, theta, result in zip(batch, params["theta"], augmented, strict=True):
        right, down = round(float(-theta[0, 2] * width / 2)), round(float(-theta[1, 2] * height / 2))
        wanted = torch.zeros_like(image)
        rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
        source = image[:, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
        wanted[:, rows, columns] = source
        assert torch.equal(result, wanted), "no pixel is blended with another"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_cutout_is_cut_at_the_border(shape, seed):
    """The reference clamps the coordinates of the whole box, pixel by pixel."""
    batch = images(shape)
    height, width = shape[1:]
    sizes = [int(side * 0.5 + 0.5) for side in (height, width)]
    same = generator(seed)
    torch.randint(1, (), generator=same)
    centres = [
        torch.randint(0, side + 1 - size % 2, (len(batch),), generator=same)
        for side, size in zip((height, width), sizes, strict=True)
    ]
    augmented = per_image("cutout", shape, len(batch), generator(seed))(batch)
    for image, row, column_, result in zip(batch, *centres, augmented, strict=True):
        wanted = image.clone()
        for i in range(sizes[0]):
            for j in range(sizes[1]):
                y = min(max(int(row) + i - sizes[0] // 2, 0), height - 1)
                x = min(max(int(column_) + j - sizes[1] // 2, 0), width - 1)
                wanted[:, y, x] = 0
        assert torch.equal(result, wanted)


def test_flip_mirrors_those_that_it_says():
    batch = images(count=40)
    (params,), augmented = applied("flip", batch)
    assert 0 < int(params["batch_prob"].sum()) < 40
    for image, flipped, result in zip(batch, params["batch_prob"], augmented, strict=True):
        assert torch.equal(result, image.flip(-1) if flipped else image)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["scale", "rotate"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_warps_are_those_of_affine_grid(name, shape, dtype):
    batch = images(shape, dtype=dtype)
    (params,), augmented = applied(name, batch)
    grid = functional.affine_grid(params["theta"].to(dtype), list(batch.shape), align_corners=False)
    wanted = functional.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    exact = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 2e-4}
    torch.testing.assert_close(augmented, wanted, **exact)
    assert not torch.equal(augmented, batch)


def test_scale_above_one_shrinks_the_content():
    batch = torch.ones(60, 1, 32, 32)
    (params,), augmented = applied("scale", batch)
    shrunk = params["theta"][:, 0, 0] > 1.12
    assert shrunk.any()
    assert (~shrunk).any()
    assert (augmented[shrunk][:, 0, 16, 0] == 0).all()
    assert (augmented[params["theta"][:, 0, 0] < 1][:, 0, 16, 0] == 1).all()


# --- siamese, for each image, replay ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_siamese_pair_gets_the_same_transform(name, shape):
    """Real and synthetic batches of other sizes: an image's result does not depend on the batch that it is in."""
    for seed in range(4):
        transform = siamese(name, shape, generator(seed))
        real, synthetic = images(shape, 7), images(shape, 2, seed=9)
        both = transform(torch.cat([real, synthetic]))
        assert torch.equal(transform(real), both[:7])
        assert torch.equal(transform(synthetic), both[7:])
        assert torch.equal(transform(real), transform(real)), "again and again"
        same = torch.cat([real[:1]] * 5)
        assert all(torch.equal(image, transform(real[:1])[0]) for image in transform(same))


@pytest.mark.parametrize("name", OPERATIONS)
def test_threads_may_share_a_transform(name):
    """Kornia's modules keep their last parameters and matrix on themselves: no result may come from there."""
    transform = siamese(name, (3, 32, 32), generator(4))
    batches = [images(count=count, seed=count) for count in range(1, 9)]
    wanted = [transform(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        augmented = list(pool.map(transform, batches * 12))
    assert all(torch.equal(actual, other) for actual, other in zip(augmented, wanted * 12, strict=True))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_images_dtype_and_device(name, dtype):
    """Parameters are drawn on the CPU in float64; ``meta`` stands for whatever other device the images are on."""
    transform = siamese(name, (3, 32, 32), generator())
    assert transform(images(dtype=dtype)).dtype == dtype
    elsewhere = transform(images(dtype=dtype).to("meta"))
    assert (elsewhere.dtype, elsewhere.device.type, elsewhere.shape) == (dtype, "meta", (5, 3, 32, 32))


@pytest.mark.parametrize("name", OPERATIONS)
def test_in_training_every_image_has_parameters_of_its_own(name):
    copies = images(count=1).expand(12, -1, -1, -1)
    transform = per_image(name, (3, 32, 32), 12, generator())
    results = transform(copies)
    assert len({tuple(result.flatten().tolist()) for result in results}) >= (2 if name == "flip" else 8)
    assert torch.equal(transform(copies), results)
    assert torch.equal(dsa_augmentation(name)(copies, generator()), results)


def test_one_operation_a_batch():
    """Whatever is drawn, all images underwent it: zeros of a cut box in every image, or in none."""
    augment, batch = dsa_augmentation("cutout+color"), images(count=6).abs() + 10
    kinds = [(augment(batch, generator(seed)) == 0).flatten(1).any(1) for seed in range(30)]
    assert all(bool(kind.all()) or not bool(kind.any()) for kind in kinds)
    assert len({bool(kind.all()) for kind in kinds}) == 2


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_global_generator_is_left_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = dsa_augmentation(name)(images(), generator())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert torch.equal(dsa_augmentation(name)(images(), generator()), first)


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_done_in_place(name):
    batch = images()
    before = batch.clone()
    dsa_augmentation(name)(batch, generator())
    assert torch.equal(batch, before)


# --- gradients --------------------------------------------------------------------------------------------------------


def assert_jacobian(function, point):
    """Every entry of a Jacobian is that of finite differences, as `gradcheck` has it, but in a single batch.

    ``function`` maps a batch of points to a batch of results. All perturbed points are one batch, and so are as many
    copies of the point as there are results, each of which sends back the gradient of another result: if one depended
    on its neighbours, its row would be wrong.
    """
    steps = 1e-6 * torch.eye(point.numel(), dtype=point.dtype).view(-1, *point.shape)
    differences = ((function(point + steps) - function(point - steps)) / 2e-6).detach()
    results = torch.eye(differences[0].numel(), dtype=point.dtype).view(-1, *differences.shape[1:])
    copies = point.detach().repeat(len(results), *[1] * point.ndim).requires_grad_()
    (rows,) = torch.autograd.grad(function(copies), copies, results)
    torch.testing.assert_close(rows.flatten(1), differences.flatten(1).T, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 5, 4)])
def test_gradients_flow_through(name, shape):
    for seed in range(3):
        transform = siamese(name, shape, generator(seed))
        for image in images(shape, 2):
            assert_jacobian(transform, image)
        # The fast mode compares one projection, for what else gradcheck looks at.
        assert torch.autograd.gradcheck(transform, (images(shape, 2).requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 5, 4)])
def test_gradients_flow_through_gradients(name, shape):
    """The operations alone are affine, so a square goes before and after them."""
    transform = siamese(name, shape, generator(1))

    def gradient(pairs):
        batch, sent_back = pairs.requires_grad_().unbind(1)
        return torch.autograd.grad(transform(batch.square()).square(), batch, sent_back, create_graph=True)[0]

    assert_jacobian(gradient, images(shape, 2))


@pytest.mark.parametrize(("name", "shape"), [*((name, (1, 5, 4)) for name in OPERATIONS), ("color", (3, 3, 2))])
def test_gradients_flow_through_gradients_of_images_with_parameters_of_their_own(name, shape):
    transform = per_image(name, shape, 2, generator(1))
    batch_of_two = (images(shape, 2).requires_grad_(),)
    assert torch.autograd.gradgradcheck(lambda batch: transform(batch.square()).square(), batch_of_two)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_gradient_of_a_gradient_reaches_the_images(name):
    """As matching uses it: the gradient by weights of what a network makes of the augmented images, by the images."""
    transform = siamese(name, (3, 4, 4), generator(2))
    weights = 0.03 * torch.randn(2, 48, generator=generator(3), dtype=torch.float64)  # larger ones saturate tanh

    def matched(pairs):
        """Of each pair of images, with a network of its own whose weights are the same."""
        weight = weights.expand(len(pairs), -1, -1).clone().requires_grad_()
        logits = torch.tanh(transform(pairs.flatten(0, 1)).view(len(pairs), 2, 48) @ weight.mT)
        loss = functional.cross_entropy(logits.flatten(0, 1), torch.tensor([0, 1]).repeat(len(pairs)), reduction="sum")
        (gradient,) = torch.autograd.grad(loss / 2, weight, create_graph=True)
        return gradient.square().flatten(1).sum(1, keepdim=True)

    assert_jacobian(matched, images((3, 4, 4), 2))


# --- strategies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (None, None),
        ("none", "none"),
        ("color_crop_cutout_flip_scale_rotate", EVERY),
        ("flip", "flip"),
        ("color+crop", "color+crop"),
    ],
)
def test_strategies_are_read(text, read):
    assert check_strategy(text) == read


@pytest.mark.parametrize(("text", "message"), [("flop", "flop"), ("", "''"), ("flip+", "''"), ("flip+flip", "twice")])
def test_what_is_no_strategy_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        check_strategy(text)


def test_the_sets_own_strategy():
    assert own_strategy(toy_problem()) == EVERY
    problem: Problem = toy_problem(augmentations={"dsa": "color+crop"})
    assert own_strategy(problem) == "color+crop"


@pytest.mark.parametrize("name", ["digits", "mnist", "svhn"])
def test_digits_are_never_mirrored(name):
    from harness.datasets.traits import DIGITS_TRAITS, KNOWN_TRAITS

    traits = DIGITS_TRAITS if name == "digits" else KNOWN_TRAITS[name]
    assert traits.augmentations["dsa"] == EVERY.replace("+flip", "")
    for known in ("cifar10", "cifar100", "fashion-mnist"):
        assert KNOWN_TRAITS[known].augmentations["dsa"] == EVERY
