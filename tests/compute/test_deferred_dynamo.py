"""torch's compiler is imported by what compiles, and by nothing else; eager numbers are the same before and after."""

import copy
import importlib
import sys
import threading
from concurrent.futures import ProcessPoolExecutor

import torch
from studies import ddbench

from harness.compute.deferred_dynamo import NAME, DeferredDynamo, defer_dynamo
from harness.testing.fresh import fork_server


def in_new_process(function, *arguments):
    """Return the result of a function in a process that has imported torch and has made nothing with it yet."""
    with ProcessPoolExecutor(1, fork_server()) as pool:
        return pool.submit(function, *arguments).result()


def trained():
    """The parameters of a network after three steps, and its optimiser's state read again."""
    network = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.5)
    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.arange(6.0).view(2, 3)).square().sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def defer_train_compile_train():
    defer_dynamo()
    stand_in = sys.modules[NAME]
    assert isinstance(stand_in, DeferredDynamo)
    defer_dynamo()
    assert sys.modules[NAME] is stand_in, "once is enough"

    before = trained()
    assert sys.modules[NAME] is stand_in, "eager code imported the compiler"
    assert not [name for name in sys.modules if name.startswith(NAME + ".")]

    failures = []

    def use():
        try:
            assert torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1)).item() == 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    importlib.import_module(NAME)
    assert torch._dynamo is sys.modules[NAME] is not stand_in
    assert torch._dynamo.config.verbose in (True, False)
    assert torch.equal(trained(), before)
    assert torch.optim.Optimizer.zero_grad.__wrapped__ is not None
    return "done"


def test_it_is_imported_by_what_compiles_alone():
    assert in_new_process(defer_train_compile_train) == "done"


def run_and_look(words):
    """Run a command; return its exit status, stderr, and whether the compiler was imported before and after."""
    before = "torch._dynamo.utils" in sys.modules
    result = ddbench(*words)
    return result.exit_code, result.stderr, (before, "torch._dynamo.utils" in sys.modules)


def test_a_run_does_without(tmp_path):
    words = ["run", "-m", "dm[batch_real=4]", "-p", "single[main=convnet[width=4,depth=1]]", "--iterations", "1",
             "-a", "mlp[width=8]", "-e", "plain[epochs=1,protocol=quick]", "--students", "1", "--executor", "inline",
             "--store", str(tmp_path / "store")]  # fmt: skip
    status, printed, imported = in_new_process(run_and_look, words)
    assert status == 0, printed
    assert imported == (False, False)
