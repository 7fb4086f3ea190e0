"""The checks of ``ddbench doctor``.

Each function imports what it needs itself, so that the others still run if one fails.
"""

import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from harness.cli.errors import message_for, version_of

ROOM = 2 * 2**30
"""Free bytes below which a disk gets a note: the size of a data set with its decoded copy."""


@dataclass(frozen=True)
class Check:
    """The outcome of a check; a ``note`` is worth knowing, but prevents nothing."""

    name: str
    status: Literal["ok", "note", "broken"]
    detail: str


def libraries() -> list[Check]:
    """Check the versions of Python, ddbench and its dependencies, and whether torch and torchvision fit together."""
    checks = [Check("python", "ok", platform.python_version()), _installed("ddbench")]
    checks += [_installed(name) for name in _dependencies()]
    return [*checks, _torch_pair()]


def machine() -> list[Check]:
    """Check devices, threads, memory allocation, bfloat16 and the compiler."""
    import torch

    from harness.compute.machine import keep_large_tensors_mapped
    from harness.compute.native_code import code_folder, compiler
    from harness.compute.precision import precision_speeds
    from harness.executors.local import cores

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    mapped, compiler_path = keep_large_tensors_mapped(), compiler()
    # Compiled, because that is how large networks run on a CPU.
    bfloat16 = precision_speeds(torch.device("cpu"), compiled=True)["bf16"]
    return [
        Check("devices", "ok", ", ".join(["cpu", *(f"cuda:{index} ({name})" for index, name in enumerate(gpus))])),
        Check("cpu threads", "ok", f"{torch.get_num_threads()} used by torch, {cores()} cores available"),
        Check(
            "large tensors stay mapped",
            "ok" if mapped else "note",
            "glibc reuses large blocks of memory"
            if mapped
            else "this C library is not glibc: large tensors are slower",
        ),
        Check(
            "bfloat16",
            "ok" if bfloat16 >= 1 else "note",
            f"a convolution is {bfloat16:g} times as fast as in float32: "
            + ("--precision bf16 is faster here" if bfloat16 >= 1 else "--precision fp32 is faster here"),
        ),
        Check(
            "compiled networks",
            "ok" if compiler_path else "note",
            f"{compiler_path}, cache in {code_folder()}" if compiler_path else "no C++ compiler (g++): somewhat slower",
        ),
    ]


def disks(store: Path) -> list[Check]:
    """Check the free space of the data root and of the store's folder, and whether they are writable."""
    from harness.datasets.problems import data_root
    from harness.errors import StoreError
    from harness.store.store import Store
    from harness.system.home import expand_home

    checks = [_folder("data root", data_root(), "set DDBENCH_DATA to another folder")]
    path = expand_home(store).absolute()
    try:
        opened = Store(store)
        # An empty folder is a store that has not been used yet.
        if path.exists() and any(path.iterdir()):
            opened.check_schema()
    except (StoreError, OSError) as error:
        return [*checks, Check("store", "broken", str(error))]
    return [*checks, _folder("store", path, "choose another with --store")]


def plugin_health() -> list[Check]:
    """Check every plugin, and that every component can be loaded."""
    from harness.cli.usable_plugins import label
    from harness.plugins.discovery import plugins

    installed = plugins()
    checks = []
    for row in installed.rows:
        detail = row.reason or f"implements {', '.join(row.hooks) or 'no hooks'}"
        status: Literal["ok", "note", "broken"] = "broken" if row.status == "broken" else "ok"
        checks.append(Check(label(row), status, detail if row.status != "disabled" else f"disabled: {detail}"))
    loaded = 0
    for entry in installed.registry.entries:
        try:
            cls = entry.load()
            loaded += 1
            if entry.kind in ("executor", "tracker") and cls.needs:
                checks.append(_packages(entry.kind, entry.name, cls.needs))
        # Plugins can raise anything when they are imported.
        except Exception as error:
            checks.append(Check(f"{entry.kind} {entry.name}", "broken", message_for(error) or repr(error)))
    clashes = sorted({f"{e.kind} {e.name}" for e in installed.registry.entries if installed.registry.ambiguous(e)})
    if clashes:
        detail = f"{', '.join(clashes)}: several plugins provide it; write DISTRIBUTION:NAME"
        checks.append(Check("names claimed twice", "note", detail))
    return [*checks, Check("components", "ok", f"{loaded} of {len(installed.registry.entries)} can be loaded")]


def _packages(kind: str, name: str, needs: Mapping[str, str]) -> Check:
    """Check the optional packages of a component; they are missed only by who has asked for it."""
    from harness.planning.request import Request
    from harness.system.packages import lacking_package
    from harness.types.names import parse_name

    lacking = lacking_package(needs)
    is_chosen = kind == "executor" and parse_name(Request().starter).name == name
    status: Literal["ok", "note", "broken"] = "ok" if lacking is None else "broken" if is_chosen else "note"
    detail = f"{', '.join(needs)} can be imported" if lacking is None else f"it needs the package {lacking}"
    return Check(f"{kind} {name}", status, detail)


def _dependencies() -> list[str]:
    try:
        requirements = metadata.requires("ddbench") or []
    except metadata.PackageNotFoundError:
        return []
    # Requirements of extras are optional: their absence is no problem.
    return [re.split(r"[^A-Za-z0-9_.-]", text, maxsplit=1)[0] for text in requirements if "extra ==" not in text]


def _installed(name: str) -> Check:
    # Read from the metadata, so that a broken library is reported by its own check and not here.
    version = version_of(name)
    missing = version.startswith("(")
    return Check(name, "broken" if missing else "ok", f"{version}: pip install {name}" if missing else version)


def _torch_pair() -> Check:
    name = "torch with torchvision"
    try:
        import torch
        import torchvision
    except Exception as error:  # a broken pair fails in many ways
        return Check(name, "broken", message_for(error) or f"{type(error).__name__}: {error}")
    return Check(name, "ok", f"torch {torch.__version__} and torchvision {torchvision.__version__} import together")


def _folder(name: str, path: Path, remedy: str) -> Check:
    """Check the free space and the permissions at ``path``, or where it would be created."""
    # The folder itself may not exist yet: what counts is whether it can be created.
    existing = next(parent for parent in [path, *path.absolute().parents] if parent.exists())
    if not existing.is_dir():
        return Check(name, "broken", f"{path}: {existing} is not a folder; {remedy}")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "broken", f"{path}: {existing} is not writable; {remedy}")
    free = shutil.disk_usage(existing).free
    state = "" if path.exists() else " (created when it is needed)"
    return Check(name, "ok" if free >= ROOM else "note", f"{path}{state}, {free / 2**30:.1f} GiB free")
