"""Calls a function in a fresh process, which holds none of the state that the code under check may have left here."""

import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from typing import ParamSpec, TypeVar

import torch

from harness.compute.deferred_dynamo import defer_dynamo
from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry, stdout_to_stderr

P = ParamSpec("P")
T = TypeVar("T")


def fork_server() -> ForkServerContext:
    """Return the context whose processes are forked from a server that has imported torch and the contract kit."""
    context = multiprocessing.get_context("forkserver")
    # A fork of the server shares its imports; a spawned process would import torch again for every check.
    context.set_forkserver_preload(["harness.testing"])
    return context


def in_fresh_process(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Return the result of ``function`` in a fresh process with the same threads and components as this one.

    The process is forked from a server that has imported torch and the contract kit but no plugin: only the first
    call, which starts the server, is slow.

    Raises:
        BrokenProcessPool: the process ended without an answer.
    """
    # Pickled here, so that a fault in pickling is raised in the caller and does not break the pool.
    call = pickle.dumps((function, arguments, named))
    with ProcessPoolExecutor(1, fork_server()) as pool:
        answer = pool.submit(_called, call, plugins().registry.entries, torch.get_num_threads()).result()
    result: T = pickle.loads(answer)
    return result


def _called(call: bytes, entries: Sequence[Entry], threads: int) -> bytes:
    torch.set_num_threads(threads)
    defer_dynamo()
    # Components that a test registered by hand are unknown to a fresh discovery.
    plugins().registry.entries = list(entries)
    with stdout_to_stderr():
        function, arguments, named = pickle.loads(call)
        return pickle.dumps(function(*arguments, **named))
