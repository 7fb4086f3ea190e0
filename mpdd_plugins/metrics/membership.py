"""How well an attack recognises the training images by a student's loss: Yeom, Giacomelli, Fredrikson and Jha, 2018."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness import Metric, Network, Options, Problem, Streams, logits_for, option


class MembershipOptions(Options):
    """Options of `Membership`."""

    threshold: Literal["mean", "best"] = option(
        "mean",
        "the loss up to which an image counts as a member: mean of the members' losses; best: that of the largest "
        "advantage, which is 0 or more and above 0 by chance too",
        source="Yeom et al., 2018, section III",
    )


class Membership(Metric[MembershipOptions]):
    """The advantage of an attack that calls an image a member if its cross-entropy is at most a threshold.

    advantage = P(loss <= t | member) - P(loss <= t | not a member), from -1 to 1; 0: the losses say nothing (Yeom et
    al., 2018, definition 4). Members are the real training images that the set was distilled from (without the
    hold-out), whether they are in the set or not; the others are the scored images. A student of a distilled set never
    trained on most members: the number says what the set gives away of them.
    """

    Options = MembershipOptions

    def measure(self, network: Network, problem: Problem, streams: Streams) -> Mapping[str, float]:
        """Return the advantage; NaN if a loss is not finite."""
        members, others = (
            functional.cross_entropy(
                logits_for(network, problem, split.images).double(), split.labels.cpu(), reduction="none"
            )
            for split in (problem.train, problem.score)
        )
        return {"all": membership_advantage(members, others, self.options.threshold)}

    def work(self, problem: Problem) -> float:
        """Return the passes over members and others."""
        return float(len(problem.train) + len(problem.score))


def membership_advantage(members: Tensor, others: Tensor, threshold: Literal["mean", "best"]) -> float:
    """Return the advantage of a loss threshold.

    Args:
        members: losses of members (n,).
        others: losses of other images (m,).
        threshold: ``mean`` of the members' losses, or ``best``: the largest advantage of any threshold, at least 0.

    Returns:
        Between -1 and 1; NaN if a loss is not finite.
    """
    if not bool(torch.isfinite(members).all() and torch.isfinite(others).all()):
        return math.nan
    candidates = members.mean()[None] if threshold == "mean" else torch.cat([members, others])
    shares = [
        torch.searchsorted(losses.sort().values, candidates, right=True).double() / len(losses)
        for losses in (members, others)
    ]
    advantage = float((shares[0] - shares[1]).max())
    return advantage if threshold == "mean" else max(0.0, advantage)
