"""The machine that the numbers are made on: memory policy, device, threads, peak memory."""

import ctypes
import platform
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from harness.compute.compiling import Policy, compilation, set_compilation
from harness.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_large_tensors_mapped() -> bool:
    """Tell glibc to reuse large blocks instead of mapping and unmapping them at each operation.

    By default every tensor over 32 MB is mapped anew, and its page faults cost more than the arithmetic. Threads share
    one heap: those of their own would be given back whenever they are empty, and mapped anew too.

    Returns:
        Whether the C library took all settings (glibc only).
    """
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_ARENA_MAX: 1}
    try:
        libc = ctypes.CDLL("libc.so.6")
        taken = [libc.mallopt(name, value) for name, value in settings.items()]
        return all(taken)
    except (OSError, AttributeError):
        return False


def prepare_process(policy: Policy = "auto") -> None:
    """Set up this process and thread as all numbers are made: memory, denormals, and whether networks are compiled.

    Numbers too small for full precision count as zero: they come up where a small set is learned by heart, and are many
    times slower on some processors.
    """
    keep_large_tensors_mapped()
    torch.set_flush_denormal(True)
    set_compilation(policy)


@contextmanager
def prepared(policy: Policy) -> Iterator[None]:
    """The same for a while; then small numbers count again, and nothing is compiled."""
    prepare_process(policy)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        set_compilation("never")


def choose_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name} is no device; use cpu, cuda, cuda:0 or auto") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda" or not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch {torch.__version__} sees no such device here; use --device cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are only {torch.cuda.device_count()} GPUs here")
    return device


@dataclass(frozen=True)
class Compute:
    """The compute mode, which decides the last bits of every number and is recorded with it."""

    device: str
    threads: int
    torch_version: str
    machine: str
    compilation: str

    @classmethod
    def of(cls, device: torch.device) -> "Compute":
        """The mode of this process on ``device``."""
        return cls(str(device), torch.get_num_threads(), torch.__version__, device_name(device), compilation())


def device_name(device: torch.device) -> str:
    """Return what the GPU or the processor is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


@cache
def processor() -> str:
    """What the CPU is called; where the system does not tell, its architecture."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of `peak_memory`, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak since the last reset: that torch has taken of a GPU, or of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)  # what a recording uses counts as reserved only
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return int(found.group(1)) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
