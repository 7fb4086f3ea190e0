"""The process that does a job plans again what the job needs, and no more; its cells are those of the whole plan."""

import pytest

from harness.errors import StoreError
from harness.learning.pixel_method import PixelMethod
from harness.planning.request import request_from
from harness.planning.run import Run
from harness.plugins.discovery import plugins
from harness.running.jobs import ArtifactJob, jobs_of, plan_job
from harness.store.run_files import ListedJob, list_jobs

CONVNET = "convnet[width=4,depth=2]"
EXPERTS = "experts=2,train_epochs=2,steps=2,expert_epochs=1,max_start_epoch=2"
CROSSED = {
    "method": ["dc[batch_real=[4,5]]", f"mtt[{EXPERTS}]", f"mtt[{EXPERTS},lr_img=1]", "random"],
    "pool": [
        f"single[main={CONVNET}]",
        f"mix[of={CONVNET}:0.5+mlp[width=4]:0.5]",
        f"adaptive[main={CONVNET},width=4,depth=2]",
    ],
    "evaluator": ["plain[epochs=2]", f"kd[epochs=2,teacher={CONVNET},teacher-data=real,teacher-epochs=1]"],
    "architecture": ["mlp[width=8]"],
    "ipc": [1, 2],
    "iterations": [0, 2],
    "students": 1,
    "distillations": 2,
}  # fmt: skip


def listed(plan, jobs):
    """The jobs as the file of a run lists them."""
    return [ListedJob.model_validate(job) for job in list_jobs(jobs, plan.needs)]


@pytest.fixture(scope="module")
def run(data):
    return Run(request_from({**CROSSED, "dataset": f"arrays[path={data}]"}))


@pytest.fixture(scope="module")
def plan(run):
    """The whole plan, made once: no test changes it, and each plans its job anew."""
    return run.plan(plugins().registry)


def test_each_job_of_a_crossing_has_the_cells_of_the_whole_plan(run, plan):
    registry = plugins().registry
    jobs = jobs_of(plan)
    shared = [job for job in jobs if isinstance(job, ArtifactJob)]
    assert len({job.scope for job in jobs}) > len(shared) > 2, "experts that two methods share belong to a single job"
    for job, entry in zip(jobs, listed(plan, jobs), strict=True):
        planned, again = plan_job(run, entry, registry)
        assert [cell.key for cell in again.cells] == [cell.key for cell in job.cells]
        assert [cell.identity for cell in again.cells] == [cell.identity for cell in job.cells]
        assert len(planned.sources) == 1


def test_a_job_plans_no_other_trajectories(run, plan, monkeypatch):
    registry = plugins().registry
    jobs = jobs_of(plan)
    (entry, *_) = [
        each for each, job in zip(listed(plan, jobs), jobs, strict=True) if job.scope.method.startswith("dc")
    ]
    begun = []
    starts = PixelMethod.__init__
    monkeypatch.setattr(
        PixelMethod, "__init__", lambda self, *words: (begun.append(type(self)), starts(self, *words))[1]
    )
    plan_job(run, entry, registry)
    assert {kind.__name__ for kind in begun} == {"DC"}


def test_numbered_arms_are_those_of_the_whole_plan(run, plan):
    registry = plugins().registry
    last = len(plan.arms) - 1
    chosen = Run(run.request, arms=(last,))
    of_chosen = chosen.plan(registry)
    (job, *_) = jobs_of(of_chosen)
    planned, again = plan_job(chosen, listed(of_chosen, [job])[0], registry)
    assert again.key == job.key
    assert [arm.describe() for arm in planned.arms] == [plan.arms[last].describe()]


@pytest.mark.parametrize("change", ["key", "method", "dataset"])
def test_a_job_that_would_not_be_planned_today_is_refused(run, plan, change):
    registry = plugins().registry
    entry = listed(plan, jobs_of(plan))[0]
    if change == "key":
        entry = entry.model_copy(update={"key": "0" * 64})
    else:
        entry = entry.model_copy(update={"scope": entry.scope.model_copy(update={change: "other"})})
    with pytest.raises(StoreError, match=r"any more: its source or its data changed; give the command again"):
        plan_job(run, entry, registry)
