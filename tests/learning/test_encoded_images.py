"""Methods that learn by a parametrisation: plain images bit for bit, the chain rule, resuming, and the keys."""

import pytest
import torch
from studies import records, write_arrays
from toys import toy_problem, toy_trajectory

import harness
from harness import InitialImages, Streams, Task, UsageError, open_encoding
from harness.learning.pixel_method import EncodedImages, EncodedSGD
from harness.plugins.discovery import plugins

MTT = "experts=1,train_epochs=2,steps=2,expert_epochs=1,max_start_epoch=1"
METHODS = (
    "dc[batch_real=7,outer=2,inner=2,{}]",
    "dsa[batch_real=7,outer=2,inner=2,{}]",
    "dm[batch_real=7,{}]",
    f"mtt[{MTT},{{}}]",
)
WAYS = ("unit-pixels", "multi-formation", "multi-formation[factor=3]", "downsample")


def encoded(way, ipc=2, kind="real", problem=None):
    problem = problem or toy_problem()
    start = InitialImages(problem, ipc, kind, Streams(0))
    return EncodedImages(open_encoding(way, problem.shape), start)


@pytest.mark.parametrize("kind", ["real", "noise"])
def test_pixels_as_a_parametrisation_are_plain_images_bit_for_bit(kind):
    """The general path with the trivial parametrisation does what the short path of every method does."""
    problem, gradients = toy_problem(), torch.randn(5, 6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = InitialImages(problem, 2, kind, Streams(0)).inputs(2).requires_grad_()
    optimizer = torch.optim.SGD([plain], 0.7, momentum=0.5)
    general = encoded("pixels", kind=kind)
    pulled = EncodedSGD(general, 0.7, 0.5)
    for gradient in gradients:
        plain.grad, general.images.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        pulled.step()
        assert torch.equal(plain, general.images)
        assert torch.equal(plain, general.tensors["images"])


@pytest.mark.parametrize("way", WAYS)
def test_an_update_follows_the_gradient_of_the_stored_tensors(way):
    """What is pulled back is the gradient of a loss of the images with respect to the tensors, in one graph."""
    problem, learned = toy_problem(), encoded(way)
    target = torch.randn(learned.images.shape, generator=torch.Generator().manual_seed(0))
    (learned.images.grad,) = torch.autograd.grad((learned.images - target).square().sum(), learned.images)
    learned.pull_back()
    stored = learned.tensors["images"].detach().clone().requires_grad_()
    labels = torch.arange(3).repeat_interleave(2)
    pixels, targets = open_encoding(way, problem.shape).decode(stored, labels)
    inputs = problem.preprocessing.apply(pixels)[torch.argsort(targets, stable=True)]
    (wanted,) = torch.autograd.grad((inputs - target).square().sum(), stored)
    assert torch.allclose(learned.tensors["images"].grad, wanted)
    assert wanted.abs().max() > 0


@pytest.mark.parametrize("way", WAYS)
def test_images_are_decoded_again_after_an_update_and_stay_in_range(way):
    learned = encoded(way)
    leaf, before = learned.images, learned.images.detach().clone()
    optimizer = EncodedSGD(learned, 100.0, 0.0)
    leaf.grad = torch.ones_like(leaf)
    optimizer.step()
    assert learned.images is leaf
    assert not torch.equal(leaf, before)
    assert float(learned.tensors["images"].detach().min()) >= 0
    assert learned.labels.tolist() == sorted(learned.labels.tolist())
    optimizer.zero_grad()
    assert leaf.grad is None
    stored = learned.tensors["images"].detach().clone()
    optimizer.step()
    assert torch.equal(learned.tensors["images"], stored), "without a gradient there is no update"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_by_it_and_resumes_bit_for_bit(method, way):
    name = method.format(f"as={way}")
    whole, first, second = (toy_trajectory(name, ipc=2) for _ in range(3))
    start = whole.advance(0)
    wanted = whole.advance(4)
    assert not torch.equal(start.images, wanted.images)
    assert len(wanted.images) == len(wanted.labels) == 6
    assert wanted.encoding.name == way.partition("[")[0]
    first.advance(2)
    second.restore(*first.state())
    again = second.advance(4)
    assert torch.equal(wanted.images, again.images)
    assert whole.history.scalars == second.history.scalars
    assert (wanted.step_size, wanted.labels.tolist()) == (again.step_size, again.labels.tolist())


def test_images_of_a_class_are_those_of_its_label():
    method = toy_trajectory("dm[batch_real=7,as=multi-formation]", ipc=2).method
    assert (method.ipc, method.per_class, len(method.images)) == (2, 8, 24)
    for label in range(3):
        assert method.labels[method.mine(label)].tolist() == [label] * 8
    plain = toy_trajectory("dm[batch_real=7]", ipc=2).method
    assert method.work() == plain.work() + 2 * 3 * 6


def test_learned_labels_stay_with_their_stored_images():
    distilled = toy_trajectory(f"mtt[{MTT},labels=expert,as=unit-pixels]", ipc=2).advance(1)
    assert distilled.labels.shape == (6, 3)
    assert distilled.storage_bits == 32 * (distilled.images.numel() + 18)
    with pytest.raises(UsageError, match=r"labels=expert gives each image a label.*use labels=hard"):
        toy_trajectory(f"mtt[{MTT},labels=expert,as=multi-formation]")


def test_a_student_of_mtt_trains_on_every_decoded_image():
    assert toy_trajectory(f"mtt[{MTT},as=multi-formation]").method.setting.batch == 12
    assert toy_trajectory(f"mtt[{MTT}]").method.setting.batch == 3


def options(text):
    return plugins().registry.resolve("method", text).options


def test_plain_images_leave_no_trace_in_the_options():
    assert options("dm").as_json() == options("dm[as=pixels]").as_json()
    assert "as" not in options("dm").as_json()
    assert str(plugins().registry.resolve("method", "dm[as=pixels]")) == "dm"


def test_a_parametrisation_has_one_name():
    assert options("dm[as=multi-formation[factor=2]]").as_json()["as"] == "multi-formation"
    assert options("dm[as=multi-formation[factor=3]]").as_json()["as"] == "multi-formation[factor=3]"


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("multiformation", "there is no parametrisation 'multiformation': did you mean 'multi-formation'"),
        ("multi-formation[factor=0]", "multi-formation.factor=0"),
        ("multi-formation[size=2]", "no option 'size'"),
    ],
)
def test_a_wrong_name_is_one_line(way, says):
    with pytest.raises(UsageError, match=says) as caught:
        options(f"dm[as={way}]")
    assert "\n" not in str(caught.value)


def test_a_factor_that_leaves_an_empty_patch_is_refused():
    with pytest.raises(UsageError, match=r"factor=11\] leaves patches without a pixel in 16x16"):
        encoded("multi-formation[factor=11]")


def test_a_method_of_ones_own_may_store_by_a_parametrisation():
    problem = toy_problem()
    task = Task(problem, 1, Streams(0), 1)
    encoding = open_encoding("downsample", problem.shape, {})
    images = torch.rand(3, 1, 8, 8)
    distilled = task.distilled(images, torch.arange(3), encoding=encoding)
    images.zero_()
    assert distilled.images.max() > 0, "a copy"
    assert distilled.misfit(problem) is None
    assert distilled.training_data()[0].shape == (3, 1, 16, 16)


@pytest.fixture
def run(tmp_path):
    data = write_arrays(tmp_path / "a.npz")

    def run(method, **how):
        return harness.run(
            method=method, dataset=f"arrays[path={data}]", pool="single[main=mlp[width=8]]",
            evaluator="plain[epochs=2]", architecture="mlp[width=8]", students=1, iterations=1,
            store=tmp_path / "store", **how,
        )  # fmt: skip

    return run


def test_a_run_stores_and_scores_it_and_its_key_has_version_and_provider(run, tmp_path, monkeypatch):
    (row,) = run("dm[batch_real=4,as=downsample]").rows
    assert row["status"] == "done"
    (record,) = (r for r in records(tmp_path / "store").values() if r["kind"] == "distilled")
    identity = record["identity"]["trajectory"]["parametrisation"]
    assert identity == {"name": "downsample", "provider": "ddbench", "version": 1, "options": {"factor": 2}}
    assert record["identity"]["trajectory"]["method"]["options"]["as"] == "downsample"
    assert "downsample" in [component["name"] for component in record["provenance"]["components"]]
    downsample = plugins().registry.resolve("parametrisation", "downsample").cls
    monkeypatch.setattr(downsample, "version", 2)
    run("dm[batch_real=4,as=downsample]")
    assert sum(r["kind"] == "distilled" for r in records(tmp_path / "store").values()) == 2
