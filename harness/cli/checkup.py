"""What ``ddbench doctor`` examines.

Each examination imports what it needs itself, so that one failing leaves the others.
"""

import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from harness.cli.errors import message_for, version_of

ROOM = 2 * 2**30
"""Bytes below which a disk is worth a note: a data set with its decoded copy takes so much."""


@dataclass(frozen=True)
class Check:
    """One finding. A ``note`` is worth knowing, but stops nothing."""

    name: str
    status: Literal["ok", "note", "broken"]
    detail: str


def libraries() -> list[Check]:
    """Versions of Python, ddbench and what it needs, and whether torch and torchvision go together."""
    found = [Check("python", "ok", platform.python_version()), _installed("ddbench")]
    found += [_installed(name) for name in _dependencies()]
    return [*found, _torch_pair()]


def machine() -> list[Check]:
    """Devices, threads, whether the C library keeps large blocks, and whether networks can be compiled."""
    import torch

    from harness.compute.machine import keep_large_tensors_mapped
    from harness.compute.native_code import code_folder, compiler
    from harness.compute.precision import precision_speeds
    from harness.executors.local import cores

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    mapped, found = keep_large_tensors_mapped(), compiler()
    bfloat16 = precision_speeds(torch.device("cpu"), compiled=True)["bf16"]
    return [
        Check("devices", "ok", ", ".join(["cpu", *(f"cuda:{index} ({name})" for index, name in enumerate(gpus))])),
        Check("cpu threads", "ok", f"{torch.get_num_threads()} used by torch, {cores()} cores available"),
        Check(
            "large tensors stay mapped",
            "ok" if mapped else "note",
            "the C library takes the setting" if mapped else "this C library is not glibc: large tensors are slower",
        ),
        Check(
            "bfloat16",
            "ok" if bfloat16 >= 1 else "note",
            f"a convolution is {bfloat16:g} times as fast as in float32: "
            + ("--precision bf16 is quicker here" if bfloat16 >= 1 else "--precision fp32 is quicker here"),
        ),
        Check(
            "compiled networks",
            "ok" if found else "note",
            f"{found}, code kept in {code_folder()}" if found else "no C++ compiler (g++): somewhat slower",
        ),
    ]


def disks(store: Path) -> list[Check]:
    """Room in the data root and in the store's folder, and whether they can be written."""
    from harness.datasets.problems import data_root
    from harness.errors import StoreError
    from harness.store.store import Store
    from harness.system.home import expand_home

    found = [_folder("data root", data_root(), "set DDBENCH_DATA to another folder")]
    at = expand_home(store).absolute()
    try:
        opened = Store(store)
        if at.exists() and any(at.iterdir()):
            opened.check_schema()
    except (StoreError, OSError) as error:
        return [*found, Check("store", "broken", str(error))]
    return [*found, _folder("store", at, "choose another with --store")]


def plugin_health() -> list[Check]:
    """Every entry point, and every component that can be found but not loaded."""
    from harness.cli.usable_plugins import label
    from harness.plugins.discovery import plugins

    found = plugins()
    checks = []
    for row in found.rows:
        detail = row.reason or f"implements {', '.join(row.hooks) or 'no hooks'}"
        status: Literal["ok", "note", "broken"] = "broken" if row.status == "broken" else "ok"
        checks.append(Check(label(row), status, detail if row.status != "disabled" else f"disabled: {detail}"))
    loaded = 0
    for entry in found.registry.entries:
        try:
            entry.load()
            loaded += 1
        except Exception as error:
            checks.append(Check(f"{entry.kind} {entry.name}", "broken", message_for(error) or repr(error)))
    clashes = sorted({f"{e.kind} {e.name}" for e in found.registry.entries if found.registry.ambiguous(e)})
    if clashes:
        detail = f"{', '.join(clashes)}: several plugins claim it, so write DISTRIBUTION:NAME"
        checks.append(Check("names claimed twice", "note", detail))
    return [*checks, Check("components", "ok", f"{loaded} of {len(found.registry.entries)} can be loaded")]


def _dependencies() -> list[str]:
    try:
        requirements = metadata.requires("ddbench") or []
    except metadata.PackageNotFoundError:
        return []
    return [re.split(r"[^A-Za-z0-9_.-]", text, maxsplit=1)[0] for text in requirements if "extra ==" not in text]


def _installed(name: str) -> Check:
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
    """Room and permission at ``path``, or where it would be made."""
    existing = next(parent for parent in [path, *path.absolute().parents] if parent.exists())
    if not existing.is_dir():
        return Check(name, "broken", f"{path}: {existing} is no folder; {remedy}")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "broken", f"{path}: {existing} cannot be written; {remedy}")
    free = shutil.disk_usage(existing).free
    state = "" if path.exists() else " (made when it is needed)"
    return Check(name, "ok" if free >= ROOM else "note", f"{path}{state}, {free / 2**30:.1f} GiB free")
