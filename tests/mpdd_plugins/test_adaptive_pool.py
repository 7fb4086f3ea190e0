"""The adaptive pool: its rules as formulas, what never fails, and the toy problem whose answer is known."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import TINY_CONVNET, component, registry, toy_trajectory

from harness import ProbeResult, UsageError
from mpdd_plugins.pools.exponential_weights import ExponentialWeights

SMALL = f"main={TINY_CONVNET},others=mlp[width=8]+lenet"
OTHERS = ("mlp[width=8]", "lenet")
COSINES = st.one_of(st.floats(-1, 1), st.just(math.nan))


def pool(options=SMALL):
    return component("pool", f"adaptive[{options}]")


def probe(policy, accuracy, number=0, seed=0):
    """Let the pool hear of a probe in which every student had the accuracy."""
    generator = torch.Generator().manual_seed(1000 * seed + number)
    policy.probed(ProbeResult(25 * number, {"mlp": (accuracy, accuracy)}), generator)


# --- whatever is observed ---


@given(
    observed=st.lists(st.tuples(st.sampled_from([TINY_CONVNET, *OTHERS, "unheard-of"]), COSINES), max_size=30),
    main=st.sampled_from([0.1, 0.5, 0.9, 0.99]),
    strength=st.floats(0.1, 50),
    shares=st.booleans(),
)
def test_shares_by_cosines_are_a_distribution_with_the_explored_part(observed, main, strength, shares):
    words = f"main={TINY_CONVNET}:{main},others={'+'.join(OTHERS)},strategy=conflict"
    policy = pool(f"{words},strength={strength},shares={str(shares).lower()}")
    before = dict(policy.distribution(0))
    for name, cosine in observed:
        policy.observe(name, {"main_cosine": cosine, "loss": math.inf})
    after = policy.distribution(0)
    assert math.fsum(after.values()) == pytest.approx(1, abs=1e-12)
    assert list(after) == list(before)
    assert all(after[name] >= 0.2 * before[name] - 1e-12 for name in before)


@given(
    accuracies=st.lists(st.floats(0, 1), max_size=40), step=st.floats(1e-3, 1e3), explore=st.floats(0.01, 1),
    scale=st.floats(1e-3, 1),
)  # fmt: skip
def test_probes_leave_a_distribution_and_weights_that_sum_to_1(accuracies, step, explore, scale):
    policy = pool(f"{SMALL},step={step},explore={explore},scale={scale}")
    for number, accuracy in enumerate(accuracies):
        probe(policy, accuracy, number)
        shares = policy.distribution(0)
        assert math.fsum(shares.values()) == pytest.approx(1, abs=1e-12)
        assert math.fsum(policy.weights.values()) == pytest.approx(1, abs=1e-12)
        assert shares[TINY_CONVNET] in policy.weights


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(1, 11))
def test_a_restored_pool_goes_on_with_the_same_bits(accuracies, place):
    whole, cut = pool(), pool()
    for number, accuracy in enumerate(accuracies):
        if number == place % len(accuracies):
            state = json.loads(json.dumps(cut.state(), sort_keys=True))
            cut = pool()
            cut.restore(state)
        probe(whole, accuracy, number)
        probe(cut, accuracy, number)
    assert cut.state() == whole.state()
    assert cut.distribution(7) == whole.distribution(7)


# --- one arm ---


@pytest.mark.parametrize("main", ["0.5", "1.0"])
def test_one_arm_is_main_similar_with_that_probability_bit_for_bit(main):
    similar = f"main-similar[main={TINY_CONVNET}:{main},others={'+'.join(OTHERS)}]"
    trajectories = [
        toy_trajectory("dm[batch_real=4]", name) for name in (f"adaptive[{SMALL},probabilities={main}]", similar)
    ]
    ones, others = (trajectory.advance(12) for trajectory in trajectories)
    assert torch.equal(ones.images, others.images)
    assert trajectories[0].history.draws == trajectories[1].history.draws
    assert trajectories[0].networks.pool.probe is None, "there is nothing to find"


@pytest.mark.parametrize("options", ["", "strategy=conflict,", "main=convnet:0.8,strategy=conflict,"])
@pytest.mark.parametrize("others", ["convnet", "convnet+convnet", "convnet[pool=avg,norm=instance]"])
def test_without_another_architecture_there_is_nothing_to_find(options, others):
    with pytest.raises(UsageError, match="others holds nothing beside the main architecture convnet"):
        pool(f"{options}others={others}")


def test_what_seeks_nothing_may_have_the_main_architecture_alone_as_main_similar_may():
    options = "others=convnet"
    assert pool(f"{options},probabilities=0.7").distribution(0) == pytest.approx({"convnet": 1.0})
    assert component("pool", f"main-similar[{options}]").distribution(0) == pytest.approx({"convnet": 1.0})
    assert set(pool("others=convnet+lenet").distribution(0)) == {"convnet", "lenet"}


def test_a_single_probability_asks_for_no_probe_and_adapts_to_nothing():
    policy = pool(f"{SMALL},probabilities=0.7")
    assert not policy.adapts
    assert not any(policy.probes_at(iteration) for iteration in range(100))


# --- probes ---


def test_probes_begin_after_the_warm_up():
    policy = pool(f"{SMALL},warmup=3,every=4")
    assert [iteration for iteration in range(16) if policy.probes_at(iteration)] == [3, 7, 11, 15]
    assert policy.distribution(2) == {TINY_CONVNET: 1.0}
    assert policy.distribution(3)[TINY_CONVNET] == pytest.approx((0.5 + 0.7 + 0.8 + 0.9 + 0.95 + 1.0) / 6)
    assert policy.probe.architectures == ("mlp", "lenet")
    assert (policy.probe.evaluator, policy.probe.students) == ("plain[protocol=quick]", 2)


def test_weights_are_those_of_the_paper():
    """Auer et al., 2002, figure 1, written out with weights in place of their logarithms."""
    bandit = ExponentialWeights(3, step=0.7, explore=0.3)
    weights, generator = [1.0, 1.0, 1.0], torch.Generator().manual_seed(0)
    for reward in (0.5, -1.0, 1.0, 0.25, -0.5, 1.0, 1.0):
        probabilities = [0.7 * weight / sum(weights) + 0.1 for weight in weights]
        assert bandit.probabilities == pytest.approx(probabilities)
        arm = bandit.draw(generator)
        bandit.reward(reward)
        weights[arm] *= math.exp(0.7 * reward / probabilities[arm])
        assert bandit.weights == pytest.approx([weight / sum(weights) for weight in weights])


def test_arms_are_drawn_by_their_probabilities():
    bandit = ExponentialWeights(2, step=1.0, explore=0.4)
    generator = torch.Generator().manual_seed(0)
    bandit.arm = 0
    bandit.reward(1.0)
    share = bandit.probabilities[0]
    assert share == pytest.approx(0.6 / (1 + math.exp(-2)) + 0.2)
    drawn = [bandit.draw(generator) for _ in range(4000)]
    assert drawn.count(0) / 4000 == pytest.approx(share, abs=0.025)


def test_the_reward_is_the_gain_beyond_the_usual_one_clipped():
    policy = pool(f"{SMALL},scale=0.1,step=1,explore=0.6")
    rewards = []
    policy._bandit.reward = rewards.append
    for number, accuracy in enumerate([0.2, 0.25, 0.31, 0.1, 0.9]):
        probe(policy, accuracy, number)
    # Gains 0.05, 0.06, -0.21 and 0.8. The first is compared with nothing.
    usual, expected = 0.05, []
    for number, gain in [(2, 0.06), (3, -0.21), (4, 0.8)]:
        expected.append(max(-1, min(1, (gain - usual / number**0.5) / 0.1)))
        usual += (number**0.5 * gain - usual) / 5
    assert rewards == pytest.approx(expected)
    assert rewards[0] == pytest.approx(0.246447, abs=1e-6)


@pytest.mark.parametrize(("probes", "slowness"), [(4, 1.5), (8, 3), (12, 6), (40, 5)])
def test_a_curve_that_all_probabilities_share_favours_none_of_them(probes, slowness):
    """A set improves fast at first and then slowly: the probability that was drawn first is not the best for that."""
    of_first = []
    for seed in range(40):
        policy, first = pool(), None
        for number in range(probes + 1):
            probe(policy, 0.1 + 0.6 * (1 - math.exp(-number / slowness)), number, seed)
            first = first or policy.distribution(0)[TINY_CONVNET]
        of_first.append(policy.weights[first])
    assert sum(of_first) / len(of_first) == pytest.approx(1 / 6, abs=0.05)


def weight_of_best(seed, *, level, best, probes=40, noise=0.01, gap=0.03):
    """The weight of the best probability after so many probes of a made-up method.

    Its validation score has the gap at the best probability (``level``), or rises by the gap whenever it is drawn.
    """
    policy, score = pool(), 0.4
    generator = torch.Generator().manual_seed(seed)
    right = list(policy.weights)[best]
    for number in range(probes + 1):
        is_right = policy.distribution(0)[TINY_CONVNET] == right
        score = 0.4 + gap * is_right if level else score + gap * (is_right and number > 0)
        noisy = score + noise * float(torch.randn((), generator=generator))
        probe(policy, min(1.0, noisy), number, seed)
    return policy.weights[right]


@pytest.mark.parametrize("level", [True, False], ids=["the score is a function of the mix", "the gain is"])
def test_the_best_probability_of_a_toy_problem_is_found(level):
    weights = [weight_of_best(seed, level=level, best=seed % 6) for seed in range(20)]
    assert sum(weight >= 0.6 for weight in weights) >= 19, weights


def test_without_a_difference_nothing_is_found():
    weights = [weight_of_best(seed, level=True, best=0, gap=0.0) for seed in range(20)]
    assert sum(weight >= 0.6 for weight in weights) <= 10


# --- conflict ---


def conflict(**options):
    words = "".join(f",{name}={value}" for name, value in options.items())
    return pool(f"main={TINY_CONVNET}:0.8,others={'+'.join(OTHERS)},strategy=conflict{words}")


def test_the_rule_is_the_equation_of_its_docstring():
    policy = conflict(strength=3, prior=2, explore=0.25)
    for name, cosine in [("lenet", 0.5), (TINY_CONVNET, 0.9), ("mlp[width=8]", -0.4), ("lenet", 0.1)]:
        policy.observe(name, {"main_cosine": cosine})
    together = (0.5 - 0.4 + 0.1) / 3
    cosines = {"lenet": (2 * 0.3 + 2 * together) / 4, "mlp[width=8]": (-0.4 + 2 * together) / 3}
    start = {TINY_CONVNET: 0.8, "mlp[width=8]": 0.1, "lenet": 0.1}
    raised = {name: share * math.exp(3 * cosines.get(name, 0)) for name, share in start.items()}
    total = sum(raised.values())
    expected = {name: 0.75 * raised[name] / total + 0.25 * start[name] for name in start}
    assert policy.distribution(9) == pytest.approx(expected)


def test_means_forget_after_the_memory():
    policy = conflict(memory=2, shares="false")
    for cosine in (1.0, 0.0, 0.5):  # 1, then 1 + (0 - 1) / 2, then 0.5 + (0.5 - 0.5) / 2
        policy.observe("lenet", {"main_cosine": cosine})
    assert policy._cosine("mlp[width=8]") == pytest.approx(0.5)


def test_the_main_architecture_among_the_similar_ones_is_the_main_one():
    policy = component("pool", "adaptive[strategy=conflict,main=convnet:0.5]")
    twin = "convnet[norm=instance,act=relu,pool=avg]"
    before = dict(policy.distribution(0))
    assert twin in before
    policy.observe(twin, {"main_cosine": -1.0})
    assert policy.distribution(0) == before
    policy.observe("convnet[norm=batch,act=relu,pool=avg]", {"main_cosine": -1.0})
    after = policy.distribution(0)
    assert after[twin] / before[twin] == pytest.approx(after["convnet"] / before["convnet"])


@pytest.mark.parametrize(("cosine", "sign"), [(0.6, 1), (-0.6, -1)])
def test_a_share_rises_with_agreement_and_falls_with_conflict(cosine, sign):
    policy = conflict()
    before, shares = dict(policy.distribution(0)), []
    policy.observe("mlp[width=8]", {"main_cosine": 0.0})
    for _ in range(5):
        policy.observe("lenet", {"main_cosine": cosine})
        shares.append(policy.distribution(0)["lenet"])
    assert sign * (shares[0] - before["lenet"]) > 0
    assert sign * (shares[-1] - shares[0]) > 0
    assert sign * (policy.distribution(0)["lenet"] - policy.distribution(0)["mlp[width=8]"]) > 0
    assert sign * (policy.distribution(0)[TINY_CONVNET] - before[TINY_CONVNET]) < 0


def test_what_the_main_architecture_logs_and_what_is_unknown_changes_nothing():
    policy = conflict()
    before = dict(policy.distribution(0))
    policy.observe(TINY_CONVNET, {"main_cosine": 0.9})
    policy.observe("lenet", {"main_cosine": math.nan})
    policy.observe("lenet", {"loss": 3.0})
    assert policy.distribution(0) == before


# --- options ---


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("probabilities=0.5+high", "above 0, at most 1"),
        ("probabilities=0+1", "above 0, at most 1"),
        ("probabilities=0.5+0.50", "each listed once"),
        ("main=convnet:0.8", "leave it out of main"),
        ("strength=3", "strategy=probe uses no strength"),
        (
            "main=lenet:1,strategy=conflict",
            "main=lenet:1 leaves the others no share that could change: write lenet:0.9",
        ),
        ("strategy=conflict,every=3", "strategy=conflict uses no every"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_a_line(options, line):
    with pytest.raises(UsageError) as error:
        registry().resolve("pool", f"adaptive[{options}]")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["width=8", "depth=1", "warmup=2", "preset=as-released", "others=lenet"])
def test_every_option_of_main_similar_works(option):
    ours, theirs = (component("pool", f"{name}[{option}]") for name in ("adaptive", "main-similar"))
    for iteration in (0, 1, 2, 600):
        assert list(ours.distribution(iteration)) == list(theirs.distribution(iteration))
