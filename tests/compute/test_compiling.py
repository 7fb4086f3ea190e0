"""Which networks are compiled, and that this changes nothing but the time."""

import copy
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from toys import component

from harness import CutMix, Recipe, Streams, gradient_of, train_classifier
from harness.compute import compiling, winograd
from harness.compute.compiling import compilation, is_compiled, logits_of, set_compilation
from harness.types.seeds import global_rng_from

SMALL = "convnet[width=4,depth=1]"
needs_a_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


@pytest.fixture(scope="module")
def code_cache(tmp_path_factory):
    """Code that several tests need is compiled once, but never taken from an earlier session."""
    return str(tmp_path_factory.mktemp("inductor"))


@pytest.fixture(autouse=True)
def policy(monkeypatch, code_cache):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", code_cache)
    # Otherwise a pool of processes, each of which imports torch, waits for kernels that are compiled here.
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    monkeypatch.setattr(compiling._CompilationState, "refused", set())
    monkeypatch.setattr(compiling, "_compiled_forwards", {})
    set_compilation("auto")
    yield
    set_compilation("never")


@pytest.fixture
def plain_convolutions(monkeypatch):
    """Only compilation makes networks quicker: what is not compiled gives the same bits."""
    monkeypatch.setattr(compiling, "has_quick_convolutions", lambda: False)


def built(name, seed=0, shape=(3, 32, 32)):
    return component("architecture", name).build(shape, 10, torch.Generator().manual_seed(seed))


def images(count, shape=(3, 32, 32)):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "gains"),
    [
        ("convnet", True),
        ("convnet[norm=batch]", True),
        ("convnet[width=64]", False),
        ("convnet[width=32]", False),
        ("convnet[depth=9]", True),
        ("convnet[depth=10]", False),
        ("convnet[depth=30,skip=true]", False),  # it would take minutes
        ("resnet-cifar", False),
        ("mlp", False),
        ("lenet", False),
        ("alexnet", False),
        ("vgg11", False),
        ("resnet18", False),
    ],
)
def test_heavy_networks_that_leave_something_to_gain_are_compiled(name, gains):
    assert is_compiled(built(name), images(32)) is gains


def test_a_network_with_dropout_draws_the_same_numbers_whether_others_are_compiled_or_not(plain_convolutions):
    drops = torch.nn.Sequential(torch.nn.Dropout(0.5), built("convnet"))
    for policy, network in [("auto", drops), ("auto", copy.deepcopy(drops).eval()), ("never", drops)]:
        set_compilation(policy)
        assert not is_compiled(network, images(32))
    logits = []
    for policy in ("auto", "never"):
        set_compilation(policy)
        torch.manual_seed(0)
        logits.append(logits_of(drops, images(32)))
    assert torch.equal(*logits)


def test_threads_find_out_what_to_compile_while_a_step_has_the_global_generator():
    with ThreadPoolExecutor(1) as pool, global_rng_from(torch.Generator()):
        assert pool.submit(is_compiled, built("convnet"), images(32)).result(timeout=60)


def test_nothing_is_compiled_that_computes_activations_again():
    network = built("convnet")
    network.recomputes = True
    assert not is_compiled(network, images(32))


def test_nothing_is_compiled_under_never():
    network = built("convnet")
    assert is_compiled(network, images(32))
    set_compilation("never")
    assert not is_compiled(network, images(32))
    assert compilation() == "never"


def test_batches_outside_the_slices_sizes_are_run_as_they_are(monkeypatch, plain_convolutions):
    monkeypatch.setattr(compiling, "_compile", lambda forward, number: pytest.fail("was compiled"))
    network = built("convnet")
    for count in (1, 7, 33):
        assert torch.equal(logits_of(network, images(count)), network(images(count)))


@pytest.mark.slow  # compiles C++ for half a minute
@needs_a_compiler
def test_compiled_gradients_are_the_eager_ones_for_every_fresh_network(monkeypatch):
    monkeypatch.setattr(compiling, "MIN_OPERATIONS", 0.0)
    monkeypatch.setattr(compiling, "MIN_COMPILED_OPERATIONS", 0.0)
    batch, labels = images(9, (1, 16, 16)), torch.arange(9) % 3
    for seed in (0, 1):
        network = built(SMALL, seed, (1, 16, 16))
        ours = gradient_of(network, batch, labels)
        set_compilation("never")
        for compiled, eager in zip(ours, gradient_of(network, batch, labels), strict=True):
            torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-6)
        set_compilation("auto")
    assert len(compiling._compiled_forwards) == 1, "the second network needs no code of its own"
    assert compilation() == "auto"


@needs_a_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_forward_mode_and_functional_transforms_go_the_plain_way():
    network, batch = built("convnet").requires_grad_(False), images(32)
    right = torch.func.jvp(network, (batch,), (batch,))
    for actual, plain in zip(torch.func.jvp(lambda x: logits_of(network, x), (batch,), (batch,)), right, strict=True):
        torch.testing.assert_close(actual, plain)
    gradient = torch.func.grad(lambda x: logits_of(network, x).sum())(batch)
    torch.testing.assert_close(gradient, torch.func.grad(lambda x: network(x).sum())(batch))


@pytest.mark.filterwarnings("ignore")
def test_without_a_home_for_code_networks_run_as_they_are(monkeypatch, caplog):
    def homeless(source):
        raise PermissionError("[Errno 13] Permission denied: '/nowhere'")

    monkeypatch.setattr("harness.compute.winograd.compiled_library", homeless)
    winograd._native_function.cache_clear()
    monkeypatch.setattr(compiling._CompilationState, "has_quick_convolutions", None)
    with caplog.at_level(logging.WARNING, logger="ddbench"):
        network = built("resnet18")
        assert torch.equal(logits_of(network, images(33)), network(images(33)))
    (record,) = caplog.records
    assert record.message.startswith("networks run without compiled code, which is slower: [Errno 13]")
    assert compilation() == "auto, failed"


@pytest.mark.filterwarnings("ignore")
def test_where_nothing_can_be_compiled_it_is_said_once_and_networks_run_as_they_are(
    monkeypatch, caplog, plain_convolutions
):
    def broken(*args, **kwargs):
        raise RuntimeError("no C++ compiler\nmore words")

    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING, logger="ddbench"):
        for name in ("convnet", "convnet[width=96]"):
            network = built(name)
            assert torch.equal(logits_of(network, images(8)), network(images(8)))
    assert [record.message for record in caplog.records] == [
        "networks run without compiled code, which is slower: no C++ compiler (--compile never does not try)"
    ]
    assert compilation() == "auto, failed"


def test_a_networks_own_error_is_its_own(monkeypatch):
    monkeypatch.setattr(compiling, "_compile", lambda forward, number: forward)
    with pytest.raises(RuntimeError, match="channels"):
        logits_of(built("convnet"), images(8, (5, 32, 32)))


@needs_a_compiler
@pytest.mark.slow  # a C++ compiler works for 20 seconds and more
@pytest.mark.parametrize("augment", [None, CutMix(10)], ids=["plain", "cutmix"])
def test_a_compiled_network_is_trained_as_it_is_uncompiled(augment):
    images, labels = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(10)

    def trained(policy):
        set_compilation(policy)
        try:
            network = component("architecture", "convnet").build((3, 32, 32), 10, Streams(0).generator("student", 0))
            recipe = Recipe(epochs=6, lr=0.05)
            draw = Streams(0).generator
            return train_classifier(network, images, labels, recipe, draw, augment=augment)
        finally:
            set_compilation("never")

    assert trained("auto") == pytest.approx(trained("never"), rel=1e-3)
