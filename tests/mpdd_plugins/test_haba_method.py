"""HaBa: golden contrastive terms, closed forms, what a step's minibatches are, and its feature network."""

import math

import pytest
import torch
from golden_inputs import GOLDEN, assert_golden, formula
from toys import TINY_CONVNET, TINY_MLP, registry, toy_problem, toy_trajectory

from harness import Streams, Task, UsageError
from mpdd_plugins.methods.haba import contrastive_loss, pull_loss, push_loss

FEW = "experts=1,train_epochs=2,steps=3,expert_epochs=1,max_start_epoch=2,batch_expert=12,lr_img=0.5"
GOLD = GOLDEN["haba"]["contrastive terms"]


def method_of(name=f"haba[{FEW}]", ipc=1):
    """Return a method before its first step."""
    return registry().resolve("method", name).make(Task(toy_problem(), ipc, Streams(0), iterations=10))


def trajectory(more="augment=none", as_="hallucinators[count=3]", **options):
    return toy_trajectory(f"haba[{FEW},as={as_},{more}]", **options)


def test_the_contrastive_terms_are_those_of_habas_code():
    embeddings = formula(510, (12, 5), -1, 1).requires_grad_()
    loss = contrastive_loss(embeddings, torch.tensor(GOLD["inputs"]["labels"] * 2), 0.07)
    assert float(loss.detach()) == pytest.approx(GOLD["SupCon temperature .07"], rel=1e-9)
    assert_golden(torch.autograd.grad(loss, embeddings)[0], GOLD["grad of SupCon by embeddings"])
    views = embeddings.detach().chunk(2)
    assert float(pull_loss(*views)) == pytest.approx(GOLD["adversary's pull mean((1-cos)/2)"], rel=1e-9)
    assert float(push_loss(*views)) == pytest.approx(GOLD["images' push mean((1+cos)/2)"], rel=1e-9)


def test_the_contrastive_loss_of_two_orthogonal_classes():
    """Each of four anchors has one positive at cosine 1 and two negatives at cosine 0."""
    embeddings = torch.tensor([[2.0, 0], [0, 0.5], [1, 0], [0, 3]])
    loss = contrastive_loss(embeddings, torch.tensor([0, 1, 0, 1]), 0.5)
    assert float(loss) == pytest.approx(math.log(1 + 2 * math.exp(-2)), rel=1e-6)


def test_a_step_takes_each_basis_through_one_hallucinator():
    method = method_of(f"haba[{FEW},batch=4,as=hallucinators[count=3]]", ipc=2)
    assert (method.setting.batch, method.per_class) == (4, 6)
    decoded = torch.arange(3).repeat_interleave(6)  # hallucinators by place: two bases of each in a class
    drawn = set()
    for iteration in range(6):
        batches = method._batches(iteration, 3)
        assert [len(batch) for batch in batches] == [4, 2, 4], "one permutation of six bases, then the next"
        for batch in batches:
            (place,) = set((batch % 6 // 2).tolist())
            drawn.add(place)
        bases = [int(decoded[at]) * 2 + int(at % 2) for at in torch.cat(batches[:2])]
        assert sorted(bases) == list(range(6))
    assert drawn == {0, 1, 2}


def test_two_views_are_the_same_bases_by_two_hallucinators():
    method = method_of(f"haba[{FEW},as=hallucinators[count=3]]", ipc=2)
    first, second = method._two_views(0, 3).chunk(2)
    assert torch.equal(method.labels[first], method.labels[second])
    assert torch.equal(first % 2, second % 2)
    assert len(set((torch.cat([first, second]) % 6 // 2).tolist())) == 2
    encoding = method.encoded.distilled(method.task)
    images = encoding.encoding.decode(encoding.images, encoding.labels)[0].view(3, 6, 1, 16, 16)
    own = method.images.detach()
    for at in first.tolist():
        basis, place = at // 6 * 2 + at % 2, at % 6 // 2
        assert torch.equal(own[at], images[place, basis])


def test_the_push_adds_its_gradient_to_that_of_the_trajectory():
    """By finite differences of the term, at the images before the first step."""
    running = trajectory("push=0.7")
    method, networks = running.method, running.networks
    networks.begin(0)
    networks.draw()
    method.images.grad = torch.zeros_like(method.images)
    method._extra_loss(0, networks)
    gradient, psi = method.images.grad, method._psi(networks)

    def term():
        views = method._augmented(method.images.detach()[method._two_views(0, 3)], 0, 3)
        return 0.7 * float(push_loss(*psi.features(views).detach().chunk(2)))

    direction = gradient / gradient.norm()
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            method.images += sign * 0.05 * direction
            ends.append(term())
            method.images -= sign * 0.05 * direction
    assert (ends[0] - ends[1]) / 0.1 == pytest.approx(float(gradient.norm()), rel=0.02)


def test_psi_learns_and_lives_on():
    running = trajectory("lr_feature=0.05", pool=f"single[main={TINY_CONVNET}]")
    running.advance(1)
    (member,) = running.networks.live_sets._sets["psi"]
    before = {name: tensor.clone() for name, tensor in member.network.state_dict().items()}
    running.advance(8)
    assert member.network.state_dict().keys() == before.keys()
    assert not torch.equal(member.network.state_dict()["classifier.weight"], before["classifier.weight"])
    losses = running.history.scalars["feature_loss"]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("pool", [f"single[main={TINY_CONVNET}]", f"total-random[of={TINY_CONVNET}+{TINY_MLP}]"])
def test_it_resumes_bit_for_bit(pool):
    whole, first, second = (trajectory("momentum_img=0.5", pool=pool) for _ in range(3))
    wanted = whole.advance(4)
    first.advance(2)
    second.restore(*first.state())
    again = second.advance(4)
    assert torch.equal(wanted.images, again.images)
    assert wanted.step_size == again.step_size
    for name, tensor in wanted.encoding.tensors.items():
        assert torch.equal(tensor, again.encoding.tensors[name]), name


def test_with_one_hallucinator_and_no_push_it_is_mtt():
    """Each of its minibatches is MTT's: there is one hallucinator to draw."""
    ours = trajectory("push=0,augment=none,momentum_img=0.5", "hallucinators[count=1]", ipc=2)
    mtt = toy_trajectory(f"mtt[{FEW},as=hallucinators[count=1],augment=none]", ipc=2)
    assert torch.equal(ours.advance(3).images, mtt.advance(3).images)


def test_what_has_no_two_hallucinators_is_refused():
    with pytest.raises(UsageError, match="which as=pixels has not: use mtt"):
        method_of(f"haba[{FEW},as=pixels]")
    with pytest.raises(UsageError, match="as=hallucinators\\[count=2\\], or push=0"):
        method_of(f"haba[{FEW},as=hallucinators[count=1]]")
