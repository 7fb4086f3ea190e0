"""Limits of memory: what this process may use, and the refusal of work that is known to need more."""

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError

_CGROUPS = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self")
_NO_LIMIT = 2**60
"""What version 1 of control groups writes for no limit is about 2**63."""


@dataclass(frozen=True)
class MemoryLimit:
    """A limit in bytes, and what sets it, in words."""

    size: int
    source: str


def memory_limit() -> MemoryLimit | None:
    """Return the tightest limit of the machine, the control group and the process; None if none is known.

    It counts all memory and not what is free just now, which changes while a run waits in a queue.
    """
    return min(_limits(), key=lambda limit: limit.size, default=None)


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Refuse work, before it begins, that is known to need more memory than there is.

    Args:
        needed: bytes that the work takes at its peak, all copies counted.
        what: the work, as the subject of a sentence.
        remedy: what the user can do about it.

    Raises:
        DataError: the machine, the control group or the process may not use so much.
    """
    limit = memory_limit()
    if limit is not None and needed > limit.size:
        excess = f"{_gigabytes(needed)} of memory, but {limit.source} is {_gigabytes(limit.size)}"
        raise DataError(f"{what} would need {excess}: {remedy}")


def _limits() -> Iterator[MemoryLimit]:
    with contextlib.suppress(OSError, ValueError):  # not every system knows these names
        yield MemoryLimit(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "all that this machine has")
    for size in _of_control_groups():
        yield MemoryLimit(size, "the limit of this control group (container or job)")
    for kind, field, option in ((resource.RLIMIT_AS, "VmSize", "-v"), (resource.RLIMIT_DATA, "VmData", "-d")):
        allowed = resource.getrlimit(kind)[0]
        if allowed != resource.RLIM_INFINITY:
            # These limits count what is mapped already, torch's libraries included; the limits above count only what is
            # used.
            left = max(allowed - _in_use(field), 0)
            yield MemoryLimit(left, f"what is left of this process's limit (ulimit {option})")


def _of_control_groups() -> Iterator[int]:
    """Yield the limits of this process's control groups, of both versions, up to the root."""
    try:
        lines = (_PROCESS / "cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, name = _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = Path(group.lstrip("/"))
        # A group's limit also binds the groups below it, so the tightest may be that of any ancestor.
        for folder in (inner, *inner.parents):  # a container may see itself at the root, whatever the line says
            try:
                size = int((root / folder / name).read_text())
            except (OSError, ValueError):  # no such group here, or "max"
                continue
            if size < _NO_LIMIT:
                yield size


def _in_use(field: str) -> int:
    """Return the bytes of address space (``VmSize``) or of data (``VmData``) that this process has mapped."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
