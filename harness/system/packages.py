"""Optional packages: what a component imports, and what pip installs it from."""

import importlib.util
from collections.abc import Mapping

from harness.errors import UsageError


def lacking_package(needs: Mapping[str, str]) -> str | None:
    """Return the first module of ``needs`` that is not installed, with its remedy; None if all are.

    Args:
        needs: by module, what pip installs it from: ``{"submitit": "ddbench[slurm]"}``.
    """
    # Looked for and not imported: whoever starts a run may never use it, and an import takes seconds.
    lacking = next((module for module in needs if not _is_installed(module)), None)
    return lacking and f"{lacking}, which is not installed: pip install '{needs[lacking]}'"


def _is_installed(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    # Any folder of that name on the path, say "datasets" where a user works, is a namespace: a package without a file.
    return spec is not None and not (spec.origin is None and spec.submodule_search_locations is not None)


def require_packages(who: str, needs: Mapping[str, str]) -> None:
    """Refuse to go on without a package.

    Raises:
        UsageError: one of ``needs`` is not installed; the message has the remedy.
    """
    if lacking := lacking_package(needs):
        raise UsageError(f"{who} needs the package {lacking}")
