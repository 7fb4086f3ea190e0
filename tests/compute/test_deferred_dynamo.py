"""torch's compiler is imported by what compiles, and by nothing else; eager numbers are the same before and after."""

import subprocess
import sys

SCRIPT = """
import copy, sys, threading
import torch
from harness.compute.deferred_dynamo import NAME, DeferredDynamo, defer_dynamo

defer_dynamo()
stand_in = sys.modules[NAME]
assert isinstance(stand_in, DeferredDynamo)
defer_dynamo()
assert sys.modules[NAME] is stand_in, "once is enough"

def trained():
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
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
import torch._dynamo
assert torch._dynamo is sys.modules[NAME] is not stand_in
assert torch._dynamo.config.verbose in (True, False)
assert torch.equal(trained(), before)
assert torch.optim.Optimizer.zero_grad.__wrapped__ is not None
print("done")
"""


def test_it_is_imported_by_what_compiles_alone():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr


def test_a_run_does_without(tmp_path):
    words = ["run", "-m", "dm[batch_real=4]", "-p", "single[main=convnet[width=4,depth=1]]", "--iterations", "1",
             "-a", "mlp[width=8]", "-e", "plain[epochs=1,protocol=quick]", "--students", "1", "--executor", "inline",
             "--store", str(tmp_path / "store")]  # fmt: skip
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch._dynamo.utils' in sys.modules))\n"
        "from harness.cli import main\n"
        f"sys.argv[1:] = {words!r}\n"
        "main()\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("False\n")
