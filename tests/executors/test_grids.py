"""Whole runs through the clusters' executors: the store has every cell in the end, whatever dies on the way."""

import json

import pytest
from executors.orders import wait_until

from harness.store.store import Store

GRID = ("-m", "walk[seconds=0.2]", "--distillations", "3", "--iterations", "8", "--students", "1",
        "--checkpoint-every", "0")  # fmt: skip


def states(store):
    """What the store says of the run's cells, by key."""
    (plan,) = (store / "runs").glob("*/plan.json")
    cells = [key for job in json.loads(plan.read_text())["jobs"] for key, *_ in job["cells"]]
    return {key: Store(store).record(key) is not None for key in cells}


def assert_whole(run, store):
    assert run.wait() == 0, run.printed
    assert len(states(store)) == 6
    assert all(states(store).values())
    assert "1 student on each of 3 distillations" in run.printed


@pytest.mark.parametrize(
    "executor",
    ["local", pytest.param("slurm[cluster=local,slots=2]", marks=pytest.mark.slow)],  # jobs are polled for 20 seconds
)
def test_a_grid_where_files_of_the_user_stand_in_the_way(start, tmp_path, folder_in_the_way, executor):
    store = tmp_path / "store"
    assert_whole(start(*GRID, store=store, executor=executor, folder=folder_in_the_way), store)


@pytest.mark.slow  # starts a real cluster
def test_a_cluster_of_two_nodes_of_which_one_is_killed_runs_a_grid(start, tmp_path, folder_in_the_way):
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 10**8, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        store = tmp_path / "store"
        run = start(*GRID, store=store, executor=f"ray[address={cluster.address}]", folder=folder_in_the_way)
        wait_until(lambda: len(at_work(store)) == 2 or run.poll() is not None)
        (worker,) = cluster.worker_nodes
        cluster.remove_node(worker, allow_graceful=False)
        assert_whole(run, store)
        assert not at_work(store)
    finally:
        cluster.shutdown()


def at_work(store):
    """Trajectories that have made a step and are still made."""
    holders = Store(store).leases.all() if (store / "leases").exists() else []
    return [holder for holder in holders if holder.is_live and list((store / "partial").glob(f"{holder.key}/*"))]
