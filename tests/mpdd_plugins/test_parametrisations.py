"""Parametrisations against published values, hand-made cases and finite differences; and how their sets are stored."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_problem, toy_trajectory

from harness import (
    DataError,
    DistilledSet,
    InitialImages,
    Parametrisation,
    Split,
    Streams,
    check_pixels,
    load_distilled,
    open_encoding,
    save_distilled,
)
from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry

WAYS = (
    "pixels", "unit-pixels", "multi-formation", "multi-formation[factor=3]", "multi-formation[formation=multi-scale]",
    "multi-formation[formation=bounded,bound=4]", "downsample", "downsample[factor=3]",
)  # fmt: skip


def golden_input(number, shape):
    """Values in [0, 1] by integer arithmetic, as the published reference values are defined on."""
    count = math.prod(shape)
    values = [
        (31 * i * i + 101 * (2 * number + 1) * i + 17 * number**2 + 13 * number + 7) % 10007 for i in range(count)
    ]
    return (torch.tensor(values, dtype=torch.float64) / 10007).reshape(shape)


GOLDEN = {
    # IDC's own decoding (snu-mllab/Efficient-Dataset-Condensation ceac95a) in float64: sum, norm, values at indices.
    2: (202, 3040.358948735885, 41.54609301736561,
        {0: 0.5813930248825822, 1229: 0.8817577695613071, 2457: 0.2968671929649246, 6143: 0.2947936444488858}),
    3: (203, 7002.411310129784, 63.298901657199345,
        {0: 0.2707105026481463, 2765: 0.4502348356150695, 11058: 0.35043594483861296, 13823: 0.5}),
}  # fmt: skip


def close(value, wanted):
    assert float(value) == pytest.approx(wanted, abs=1e-9 * max(1, abs(wanted)))


@pytest.mark.parametrize("factor", GOLDEN)
def test_multi_formation_decodes_as_idc_does(factor):
    number, total, norm, at = GOLDEN[factor]
    images = golden_input(number, (2, 3, 16, 16))
    decoded, labels = open_encoding(f"multi-formation[factor={factor}]", (3, 16, 16)).decode(
        images, torch.tensor([4, 7])
    )
    assert labels.tolist() == [4, 7] * factor**2
    close(decoded.sum(), total)
    close(decoded.norm(), norm)
    for index, value in at.items():
        close(decoded.flatten()[index], value)


def test_multi_scale_formation_decodes_as_idc_does():
    images = golden_input(210, (2, 1, 16, 16))
    encoding = open_encoding("multi-formation[factor=3,formation=multi-scale]", (1, 16, 16))
    decoded, labels = encoding.decode(images, torch.tensor([1, 2]))
    assert labels.tolist() == [1, 2] * 14
    assert decoded.shape == (28, 1, 16, 16)
    close(decoded.sum(), 3733.408480079569)
    close(decoded.norm(), 47.089373638042616)
    for index, value in {0: 0.19106625362246427, 1433: 0.3622464275007495, 2867: 0.23542894973518538,
                         4300: 0.4275756970120915, 5734: 0.6449200403467572, 7167: 0.5}.items():  # fmt: skip
        close(decoded.flatten()[index], value)


def test_bounded_formation_decodes_a_class_as_idc_does():
    images = golden_input(211, (6, 1, 16, 16))
    encoding = open_encoding("multi-formation[formation=bounded,bound=13]", (1, 16, 16))
    decoded, labels = encoding.decode(images, torch.zeros(6, dtype=torch.long))
    assert labels.tolist() == [0] * 9
    close(decoded.sum(), 1158.3999200559608)
    close(decoded.norm(), 27.013575034342665)
    for index, value in {0: 0.9075647047067054, 461: 0.3303000399720196, 921: 0.5504084640751474,
                         1382: 0.1349055661037274, 2303: 0.4887578694913561}.items():  # fmt: skip
        close(decoded.flatten()[index], value)


@settings(deadline=None, max_examples=60)
@given(factor=st.integers(1, 5), bound=st.integers(1, 60), ipc=st.integers(1, 12), soft=st.booleans())
def test_bounded_formation_shows_every_image_and_keeps_the_bound_of_each_class(factor, bound, ipc, soft):
    images = (torch.arange(3 * ipc) + 1).view(-1, 1, 1, 1).expand(-1, 1, 10, 10) / 255
    indices = torch.arange(3).repeat(ipc)  # classes in turn: a class is not a slice
    labels = torch.nn.functional.one_hot(indices, 3).float() if soft else indices
    encoding = open_encoding(f"multi-formation[factor={factor},formation=bounded,bound={bound}]", (1, 10, 10))
    decoded, targets = encoding.decode(images, labels)
    classes = targets.argmax(1) if soft else targets
    shown = (decoded[:, 0, 0, 0] * 255).round().long() - 1
    assert torch.equal(indices[shown], classes), "each under the label of its image"
    assert torch.equal(shown.unique(), torch.arange(3 * ipc)), "every image is shown"
    counts = torch.bincount(classes)
    assert len(counts.unique()) == 1, "as many of each class"
    assert counts[0] <= max(bound, ipc)
    if factor > 1:  # the published count, which does not reuse the place that each packed image had
        whole = min(max(bound - ipc, 0) // factor**2, ipc)
        assert torch.equal(torch.bincount(shown)[: 3 * whole], torch.full((3 * whole,), factor**2))
        assert (torch.bincount(shown)[3 * whole :] < factor**2).all()


class InOrder(InitialImages):
    """Images of one's own in place of drawn ones, as IDC takes the first of each class."""

    def pixels(self, per_class):
        return torch.cat([golden_input(220 + label, (per_class, 1, 16, 16)) for label in range(2)])


def test_multi_formation_starts_as_idc_mixes():
    problem = toy_problem(classes=2)
    parametrisation = open_encoding("multi-formation", problem.shape).parametrisation
    packed = parametrisation.initial(InOrder(problem, 2, "real", Streams(0)))["images"]
    assert packed.shape == (4, 1, 16, 16)
    close(packed.sum(), 521.2580193864295)
    close(packed.norm(), 18.734728341783367)
    wanted = {0: 0.5089437393824323, 205: 0.43559508344159087, 409: 0.031577895473168784, 1023: 0.5887878485060458}
    for index, value in wanted.items():
        close(packed.flatten()[index], value)


def start(shape=(1, 16, 16), ipc=1, kind="real", **problem):
    return InitialImages(toy_problem(shape=shape, **problem), ipc, kind, Streams(0))


def flat_problem(shape, per_class):
    """Constant images, each of another grey, so that a decoded image says which real one it holds."""
    problem = toy_problem(shape=shape, train=per_class, classes=2)
    levels = torch.arange(1, 2 * per_class + 1, dtype=torch.uint8)
    images = levels.view(-1, 1, 1, 1).expand(-1, *shape).contiguous()
    return dataclasses.replace(problem, train=Split(images, problem.train.labels))


@settings(deadline=None, max_examples=40)
@given(factor=st.integers(1, 5), height=st.integers(6, 14), width=st.integers(6, 14), ipc=st.integers(1, 2))
def test_patches_of_multi_formation_lie_where_decoding_cuts(factor, height, width, ipc):
    """Each decoded image shows one real image, also if the factor does not divide the size: none of its neighbour."""
    sides = [-(-size // factor) for size in (height, width)]
    if any(side * (factor - 1) >= size for side, size in zip(sides, (height, width), strict=True)):
        return  # refused, because a patch would have no pixel
    problem = flat_problem((1, height, width), ipc * factor**2)
    encoding = open_encoding(f"multi-formation[factor={factor}]", problem.shape)
    stored = encoding.parametrisation.initial(InitialImages(problem, ipc, "real", Streams(0)))["images"]
    assert stored.shape == (2 * ipc, 1, height, width)
    decoded, labels = encoding.decode(stored, torch.arange(2).repeat_interleave(ipc))
    assert decoded.shape == (2 * ipc * factor**2, 1, height, width)
    # Grey padding reaches into the last patches alone, so the pixel at the top left is of the patch's own image.
    shown = (decoded[:, 0, 0, 0] * 255).round().long()
    assert sorted(shown.tolist()) == list(range(1, len(decoded) + 1)), "every real image once"
    assert torch.equal(labels, (shown > ipc * factor**2).long()), "under the label of its class"


@settings(deadline=None, max_examples=30)
@given(factor=st.integers(1, 8), height=st.integers(1, 12), width=st.integers(1, 12))
def test_downsampled_images_have_the_stored_size_and_the_mean(factor, height, width):
    shape = (3, height, width)
    encoding = open_encoding(f"downsample[factor={factor}]", shape)
    stored = encoding.parametrisation.initial(start(shape))["images"]
    assert stored.shape == (3, 3, -(-height // factor), -(-width // factor))
    assert encoding.decode(stored, torch.arange(3))[0].shape == (3, *shape)
    assert encoding.storage_bits(stored, torch.arange(3)) == 32 * stored.numel()
    grey = torch.full_like(stored, 0.25)
    assert torch.allclose(encoding.decode(grey, torch.arange(3))[0], torch.tensor(0.25))


@pytest.mark.parametrize("way", WAYS)
def test_gradients_pass_through_decoding(way):
    encoding = open_encoding(way, (1, 5, 7))
    stored = encoding.parametrisation.initial(start((1, 5, 7)))["images"].double().requires_grad_()
    labels = torch.arange(3)
    assert torch.autograd.gradcheck(lambda images: encoding.decode(images, labels)[0], stored)
    # Methods of gradient matching differentiate twice.
    assert torch.autograd.gradgradcheck(lambda images: encoding.decode(images, labels)[0], stored)


def test_a_class_with_fewer_images_repeats_them():
    images = start(train=3).pixels(8)
    assert images.shape == (24, 1, 16, 16)
    assert len(torch.unique(images[:8], dim=0)) == 3
    check_pixels(images)


def test_pixels_start_from_the_images_that_network_inputs_start_from():
    begin = start(ipc=2)
    inputs = begin.problem.preprocessing.apply(begin.pixels(2))
    assert torch.equal(inputs, begin.inputs(2))


# --- a parametrisation with a decoder, as a plugin brings it ----------------------------------------------------------


class Blend(Parametrisation):
    """Stores codes (n, 3) and basis images that all share: a decoder whose weights are learned."""

    def initial(self, start):
        problem = start.problem
        generator = start.streams.generator("init", 1)
        return {
            "images": torch.rand(start.ipc * len(problem.classes), 3, generator=generator),
            "basis": torch.rand(3, *problem.shape, generator=generator),
        }

    def decode(self, tensors, labels, shape):
        weights = tensors["images"].softmax(1)
        return torch.einsum("nk,kchw->nchw", weights, tensors["basis"]), labels

    def constrain(self, tensors):
        tensors["basis"].clamp_(0, 1)


@pytest.fixture
def blend():
    entry = Entry("parametrisation", "blend", f"{__name__}:Blend", "a toy", "acme", "1")
    plugins().registry.entries.append(entry)
    yield entry
    if entry in plugins().registry.entries:
        plugins().registry.entries.remove(entry)


def blended():
    problem = toy_problem()
    encoding = open_encoding("blend", problem.shape)
    tensors = dict(encoding.parametrisation.initial(InitialImages(problem, 2, "real", Streams(0))))
    images, labels = tensors.pop("images"), torch.arange(3).repeat_interleave(2)
    encoding = dataclasses.replace(encoding, tensors=tensors)
    return DistilledSet(images, labels, problem.classes, problem.preprocessing, 0.02, {"method": "x"}, encoding)


@pytest.mark.parametrize("name", ["set.safetensors", "set.npz"])
def test_codes_and_a_decoder_are_stored_and_read_again(blend, tmp_path, name):
    distilled = blended()
    assert distilled.misfit(toy_problem()) is None
    assert save_distilled(distilled, tmp_path / name) == ()
    again = load_distilled(tmp_path / name)
    assert torch.equal(again.images, distilled.images)
    assert torch.equal(again.encoding.tensors["basis"], distilled.encoding.tensors["basis"])
    assert again.encoding.description() == distilled.encoding.description()
    for ours, theirs in zip(distilled.training_data(), again.training_data(), strict=True):
        assert torch.equal(ours, theirs)
    assert (again.step_size, again.provenance) == (0.02, {"method": "x"})


def test_storage_counts_codes_decoder_and_soft_labels(blend):
    distilled = blended()
    bits = 32 * (6 * 3 + 3 * 256)
    assert distilled.storage_bits == bits
    assert distilled.storage_floats == bits // 32
    soft = dataclasses.replace(distilled, labels=torch.full((6, 3), 1 / 3))
    assert soft.storage_bits == bits + 32 * 18
    half = {"basis": distilled.encoding.tensors["basis"].half()}
    smaller = dataclasses.replace(distilled, encoding=dataclasses.replace(distilled.encoding, tensors=half))
    assert smaller.storage_bits == bits - 16 * 3 * 256


@pytest.mark.parametrize("name", ["set.safetensors", "set.npz"])
def test_a_reader_without_the_plugin_gets_one_line_that_names_it(blend, tmp_path, name):
    save_distilled(blended(), tmp_path / name)
    plugins().registry.entries.remove(blend)
    with pytest.raises(DataError) as caught:
        load_distilled(tmp_path / name)
    message = f"{name}: its images are stored by the parametrisation 'blend' of 'acme': install the plugin 'acme'"
    assert str(caught.value) == message


def test_of_another_distribution_it_is_another_parametrisation(blend, tmp_path):
    save_distilled(blended(), tmp_path / "set.safetensors")
    plugins().registry.entries.remove(blend)
    other = dataclasses.replace(blend, provider="other")
    plugins().registry.entries.append(other)
    try:
        with pytest.raises(DataError, match="install the plugin 'acme'"):
            load_distilled(tmp_path / "set.safetensors")
    finally:
        plugins().registry.entries.remove(other)


def test_a_decoder_that_lost_its_weights_is_refused(blend, tmp_path):
    distilled = blended()
    distilled.encoding.tensors["basis"].fill_(math.nan)
    with pytest.raises(DataError, match="'basis' of its parametrisation is not a tensor of finite numbers"):
        distilled.check()


def test_a_method_learns_codes_and_decoder_and_resumes_bit_for_bit(blend):
    whole, first, second = (toy_trajectory("dm[batch_real=7,as=blend]", ipc=2) for _ in range(3))
    begin, wanted = whole.advance(0), whole.advance(4)
    assert not torch.equal(begin.images, wanted.images)
    assert not torch.equal(begin.encoding.tensors["basis"], wanted.encoding.tensors["basis"])
    copy = begin.encoding.tensors["basis"].clone()
    first.advance(2)
    assert first.state()[0].keys() == {"images", "basis", "momentum", "momentum.basis"}
    second.restore(*first.state())
    again = second.advance(4)
    assert torch.equal(wanted.images, again.images)
    assert torch.equal(wanted.encoding.tensors["basis"], again.encoding.tensors["basis"])
    assert torch.equal(begin.encoding.tensors["basis"], copy), "an early set is a copy"
