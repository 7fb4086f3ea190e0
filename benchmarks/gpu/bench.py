"""What the scripts share: arguments, data, components by name, and results that a later run goes on from."""

import argparse
import json
import os
import platform
import shutil
import sys
import time
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import torch

import mpdd_plugins
from harness import builtin
from harness.compute.machine import choose_device, peak_memory, prepare_process, reset_peak_memory
from harness.datasets.problems import data_root, make_problem
from harness.plugins.registry import Entry, Registry

ARCHITECTURES = ("mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18")


class Bench:
    """One script's run: measures what is not in its results yet, as long as there is time."""

    def __init__(self, name, about, argv=None):
        parser = argparse.ArgumentParser(prog=f"{name}.py", description=about)
        parser.add_argument(
            "data", nargs="?", default="digits", help="folder with {train,test}/CLASS of CIFAR-10 [digits]"
        )
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--resume", type=Path, metavar="DIR", help="what an earlier run has left in $OUT")
        parser.add_argument(
            "--seconds", type=float, default=8.5 * 60, help="after which nothing new is begun [510]", metavar="N"
        )
        parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether it works")
        arguments = parser.parse_args(argv)
        self.started, self.name, self.quick, self.data = time.monotonic(), name, arguments.quick, arguments.data
        self.seconds = arguments.seconds
        self.device = choose_device(arguments.device)
        prepare_process("auto" if self.device.type == "cuda" else "never")
        self.out = Path(os.environ.get("OUT", "."))
        self.out.mkdir(parents=True, exist_ok=True)
        if arguments.resume and arguments.resume.resolve() != self.out.resolve():
            for path in arguments.resume.glob(f"{name}*"):
                shutil.copy(path, self.out)
        known = self.out / f"{name}.json"
        self.results = json.loads(known.read_text()) if known.exists() else {}
        self.results["machine"] = {
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
            "data": "digits" if self.data == "digits" else Path(self.data).name,
        }

    @property
    def late(self):
        return time.monotonic() - self.started > self.seconds

    def say(self, text):
        line = f"{time.monotonic() - self.started:6.1f} s  {text}"
        print(line, flush=True)
        with (self.out / f"{self.name}.log").open("a") as log:
            log.write(line + "\n")

    def measure(self, key, work, *arguments):
        """The result of ``work(*given)``, from an earlier run where there is one; None where it fails or time is up."""
        if key not in self.results:
            if self.late:
                self.say(f"{key}: no time left, start again with --resume")
                return None
            try:
                self.results[key] = work(*arguments)
            except Exception as error:  # one size may not fit: the others are still measured
                self.say(f"{key}: {type(error).__name__}: {error}")
                return None
            self.save()
        self.say(f"{key}: {json.dumps(self.results[key])}")
        return self.results[key]

    def save(self):
        path = self.out / f"{self.name}.json"
        path.with_suffix(".tmp").write_text(json.dumps(self.results, indent=1))
        path.with_suffix(".tmp").replace(path)

    def timed(self, work, repeats=1):
        """Seconds of one ``work()``, and the peak of memory in bytes; what the device still has to do is waited for."""
        reset_peak_memory(self.device)
        self.wait()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return {"seconds": (time.perf_counter() - started) / repeats, "peak_memory": peak_memory(self.device)}

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @cached_property
    def problem(self):
        name = "digits" if self.data == "digits" else f"folder[path={self.data},like=cifar10]"
        return make_problem(REGISTRY.resolve("dataset", name), root=data_root(), device=self.device)


def _registry():
    """The built-in components, whether or not the package is installed."""
    registry = Registry()
    registers = {
        "architecture": builtin.register_architectures,
        "dataset": builtin.register_datasets,
        "evaluator": mpdd_plugins.register_evaluators,
        "method": mpdd_plugins.register_methods,
        "pool": mpdd_plugins.register_pools,
    }
    for kind, register in registers.items():
        register(lambda *words, kind=kind: registry.add(Entry(kind, *words, "ddbench", "0")))
    return registry


REGISTRY = _registry()


def make(kind, name, *arguments):
    """A component by name, built."""
    return REGISTRY.resolve(kind, name).make(*arguments)


def architecture(name):
    """An architecture, as pools and evaluators ask for it."""
    return REGISTRY.resolve("architecture", name)
