"""Parametrisations whose decoders all classes share: HaBa's hallucinators and latent codes like KFS."""

import dataclasses

import pytest
import torch
from golden_inputs import GOLDEN, assert_golden, formula
from torch.nn import functional
from toys import toy_problem, toy_trajectory

from harness import DataError, InitialImages, Streams, UsageError, open_encoding
from mpdd_plugins.parametrisations.hallucinators import hallucinate, tensor_shapes

LABELS = torch.arange(3)


def initial(name, shape=(1, 16, 16), ipc=1, kind="real", **problem):
    """Return an encoding with its tensors at the start, and the images that it stores."""
    encoding = open_encoding(name, shape)
    start = InitialImages(toy_problem(shape=shape, **problem), ipc, kind, Streams(0))
    tensors = dict(encoding.parametrisation.initial(start))
    images = tensors.pop("images")
    return dataclasses.replace(encoding, tensors=tensors), images


# --- hallucinators ----------------------------------------------------------------------------------------------------


def test_a_hallucinator_is_that_of_habas_code():
    golden = GOLDEN["haba"]["hallucinator output"]
    layers = [
        formula(500, (3, 3, 3, 3), -0.3, 0.3), formula(501, (3,), -0.1, 0.1), formula(502, (3, 14, 14), 0.5, 1.5),
        formula(503, (3, 14, 14), -0.5, 0.5), formula(504, (3, 3, 3, 3), -0.3, 0.3), formula(505, (3,), -0.1, 0.1),
    ]  # fmt: skip
    assert_golden(hallucinate(formula(506, (2, 3, 16, 16), -2, 2), *layers), golden["images"])
    for size, numbers in ((16, golden["parameters"]), (32, golden["at 3x32x32"])):
        shapes = tensor_shapes(1, 3, (3, size, size)).values()
        assert sum(torch.Size(shape).numel() for shape in shapes) == numbers


def test_centre_taps_return_the_basis_inside_and_the_bias_around_it():
    tap = torch.zeros(1, 1, 3, 3)
    tap[..., 1, 1] = 1
    basis, ones = formula(1, (2, 1, 6, 7), -1, 1).float(), torch.ones(1, 4, 5)
    image = hallucinate(basis, tap, torch.zeros(1), ones, 0 * ones, tap, torch.tensor([0.25]))
    assert torch.equal(image[..., 1:-1, 1:-1], basis[..., 1:-1, 1:-1] + 0.25)
    ring = torch.cat([image[..., 0, :].flatten(), image[..., :, -1].flatten()])
    assert ring.tolist() == [0.25] * len(ring)


def test_storage_counts_bases_and_five_hallucinators():
    encoding, bases = initial("hallucinators", (3, 32, 32), ipc=2)
    assert encoding.storage_bits(bases, LABELS) == 32 * (6 * 3 * 1024 + 5 * 5568)
    decoded, labels = encoding.decode(bases, LABELS.repeat_interleave(2))
    assert decoded.shape == (30, 3, 32, 32)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] * 5


def test_grey_bases_become_colour_images():
    encoding, bases = initial("hallucinators[count=2,basis=grey]", (3, 32, 32))
    assert bases.shape == (3, 1, 32, 32)
    assert encoding.decode(bases, LABELS)[0].shape == (6, 3, 32, 32)
    assert encoding.storage_bits(bases, LABELS) == 32 * (3 * 1024 + 2 * 5514)


def test_hallucinators_start_as_pytorchs_layers():
    start = initial("hallucinators[count=200]", (3, 8, 8))[0].tensors
    layers = torch.nn.Conv2d(3, 3, 3), torch.nn.ConvTranspose2d(3, 3, 3)
    for name, layer in zip(("encoder", "decoder"), layers, strict=True):
        for part in ("weight", "bias"):
            values, bound = start[f"{name}_{part}"], 27**-0.5
            assert values[0].shape == getattr(layer, part).shape
            assert float(getattr(layer, part).detach().abs().max()) <= bound, "as PyTorch draws it"
            assert 0.95 * bound < float(values.abs().max()) <= bound
    assert bool((start["scale"] == 1).all())
    assert not bool(start["shift"].any())


# --- latent codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "stages"), [((1, 16, 16), 1), ((3, 13, 18), 1), ((2, 16, 8), 2)])
def test_without_a_random_part_a_decoder_enlarges_bilinearly(shape, stages):
    encoding, codes = initial(f"latent-codes[codes=2,decoders=1,stages={stages},channels=4,spread=0]", shape)
    decoded, _ = encoding.decode(codes, LABELS)
    by_hand = codes.flatten(0, 1)[:, : shape[0]]
    for _ in range(stages):
        by_hand = functional.interpolate(by_hand, scale_factor=2, mode="bilinear", align_corners=False)
    edge = 2**stages - 1  # around an image lie zeros and not its own outermost pixels
    inside = (..., slice(edge, shape[1] - edge), slice(edge, shape[2] - edge))
    torch.testing.assert_close(decoded[inside], by_hand[inside])


def test_storage_counts_codes_and_decoders():
    encoding, codes = initial("latent-codes[codes=3,decoders=2,channels=2,hidden=5]", ipc=2)
    one_decoder = (2 * 5 * 16 + 5) + (5 * 9 + 1)
    assert encoding.storage_bits(codes, LABELS) == 32 * (6 * 3 * 2 * 8 * 8 + 2 * one_decoder)
    decoded, labels = encoding.decode(codes, LABELS.repeat_interleave(2))
    assert len(decoded) == 6 * 3 * 2
    assert labels.tolist() == [label for label in (0, 1, 2) for _ in range(6)] * 2


def test_decoders_differ_from_the_start():
    encoding, codes = initial("latent-codes")
    first, second = encoding.decode(codes, LABELS)[0].chunk(2)
    assert not torch.allclose(first, second)


def test_codes_as_large_as_images_learn_as_dm_does():
    plain, codes = (
        toy_trajectory("dm[batch_real=7]"),
        toy_trajectory("dm[batch_real=7,as=latent-codes[codes=1,decoders=1,stages=0]]"),
    )
    assert torch.equal(plain.advance(3).images, codes.advance(3).images[:, 0])
    assert codes.method.learned().keys() == {"images"}


def test_classes_with_few_images_repeat_them_in_codes():
    _, codes = initial("latent-codes[codes=4]", train=2)
    assert codes.shape[:2] == (3, 4)
    assert len(torch.unique(codes[0], dim=0)) == 2


# --- both -------------------------------------------------------------------------------------------------------------

BOTH = ("hallucinators[count=2]", "latent-codes[codes=2]")


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("method", ["dm[batch_real=6,as={}]", "dc[batch_real=6,outer=2,inner=1,as={}]"])
def test_codes_and_decoders_are_learned_and_resume_bit_for_bit(way, method):
    whole, first, second = (toy_trajectory(method.format(way), ipc=2) for _ in range(3))
    begin, wanted = whole.advance(0), whole.advance(3)
    assert not torch.equal(begin.images, wanted.images)
    for name, tensor in begin.encoding.tensors.items():
        assert not torch.equal(tensor, wanted.encoding.tensors[name]), name
    first.advance(1)
    second.restore(*first.state())
    again = second.advance(3)
    assert torch.equal(wanted.images, again.images)
    for name, tensor in wanted.encoding.tensors.items():
        assert torch.equal(tensor, again.encoding.tensors[name]), name


@pytest.mark.parametrize("way", BOTH)
def test_tensors_of_another_shape_are_refused(way):
    encoding, images = initial(way)
    encoding.check(images)
    with pytest.raises(DataError, match="have the shapes"):
        encoding.check(images[..., :-1])
    name, tensor = next(iter(encoding.tensors.items()))
    with pytest.raises(DataError, match="have the shapes"):
        dataclasses.replace(encoding, tensors={**encoding.tensors, name: tensor[:1]}).check(images)


def test_impossible_sizes_are_refused_by_one_line():
    with pytest.raises(UsageError, match="2x9 is less than 3x3"):
        initial("hallucinators", (1, 2, 9))
    with pytest.raises(UsageError, match="hidden=6 or more"):
        initial("latent-codes[hidden=5]", (3, 8, 8))
    with pytest.raises(UsageError, match="need codes of as many"):
        initial("latent-codes[channels=2]", (3, 8, 8))
