"""Doing what a plan still lacks in this process, one job after the other."""

from collections import deque

from harness.experiment.events import Reporter
from harness.experiment.jobs import jobs_of
from harness.experiment.leases import LeaseLost
from harness.experiment.ledger import Ledger
from harness.experiment.plan import Plan
from harness.experiment.standing import Standing
from harness.experiment.store import Store
from harness.learning.precision import float32_products
from harness.plugins.discovery import Plugins


class Runner:
    """Works through a plan; a failing job does not stop the rest."""

    def __init__(self, plan: Plan, store: Store, plugins: Plugins, reporter: Reporter) -> None:
        self.plan = plan
        self.ledger = Ledger(plan, store, plugins, reporter)

    @property
    def standings(self) -> dict[str, Standing]:
        """How every cell stands now, by key."""
        return self.plan.standings(self.ledger.store) | self.ledger.lost

    def run(self) -> None:
        """Make every missing cell. Whatever asks for nothing else computes in float32.

        Raises:
            StoreError: the store cannot be written any more.
        """
        with float32_products("fp32"):
            waiting = deque(jobs_of(self.plan))
            while waiting:
                job = waiting.popleft()
                try:
                    job.do(self.ledger)
                except LeaseLost as loss:  # look again in the end: until then the others have made it, or died
                    self.ledger.reporter.notice(str(loss))
                    waiting.append(job)
