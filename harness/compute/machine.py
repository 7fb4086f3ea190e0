"""The machine that computes the numbers: memory policy, device, threads, peak memory."""

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
from harness.compute.deferred_dynamo import defer_dynamo
from harness.errors import UsageError

# Values of glibc's <malloc.h>, which Python has no names for.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_large_tensors_mapped() -> bool:
    """Make glibc reuse large blocks of memory instead of mapping and unmapping them at each operation.

    Returns:
        Whether the C library accepted all settings (glibc only).
    """
    # By default every tensor over 32 MB is mapped anew, and its page faults cost more than the arithmetic. Threads have
    # to share one heap (arena): one of their own is unmapped whenever it is empty, and then mapped anew as well.
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_ARENA_MAX: 1}
    try:
        libc = ctypes.CDLL("libc.so.6")
        accepted = [libc.mallopt(name, value) for name, value in settings.items()]  # a list: all of them are tried
        return all(accepted)
    except (OSError, AttributeError):
        return False


def prepare_process(policy: Policy = "auto") -> None:
    """Set up this process and thread for a run: memory, denormal numbers, and whether networks are compiled.

    torch's compiler is imported only by what compiles.

    Args:
        policy: ``auto`` or ``never``, as for `set_compilation`.
    """
    keep_large_tensors_mapped()
    defer_dynamo()
    # Numbers too small for full precision count as zero: gradients get that small once a network has learned a small
    # set by heart, and some processors compute with them many times slower.
    torch.set_flush_denormal(True)
    set_compilation(policy)


@contextmanager
def prepared(policy: Policy) -> Iterator[None]:
    """Set up the process as `prepare_process` does, and afterwards restore denormals and switch compilation off."""
    prepare_process(policy)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        set_compilation("never")


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is the first GPU if there is one, otherwise the CPU.

    Raises:
        UsageError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name} is not a device; use cpu, cuda, cuda:0 or auto") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda" or not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch {torch.__version__} sees no such device here; use --device cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are only {torch.cuda.device_count()} GPUs here")
    return device


@dataclass(frozen=True)
class Compute:
    """The compute mode, which decides the last bits of every number and is part of its record."""

    device: str
    threads: int
    torch_version: str
    machine: str
    compilation: str

    @classmethod
    def of(cls, device: torch.device) -> "Compute":
        """Return the mode of this process on ``device``."""
        return cls(str(device), torch.get_num_threads(), torch.__version__, device_name(device), compilation())


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


@cache
def processor() -> str:
    """Return the name of the CPU, or its architecture if the system does not name it."""
    try:
        name = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        name = None
    return name.group(1).strip() if name else platform.processor() or platform.machine()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of `peak_memory`, if the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM (man 5 proc)
    except OSError:
        return


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes since the last reset: of torch on a GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)  # the memory of CUDA graphs counts as reserved only
    try:
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        peak = None
    # ru_maxrss cannot be reset, so without /proc this is the peak of the whole life of the process.
    return int(peak.group(1)) * 1024 if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
