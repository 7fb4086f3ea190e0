"""A stand-in for torch's compiler frontend, which takes seconds to import and which a run seldom needs."""

import functools
import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"
_lock = threading.RLock()


def defer_dynamo() -> None:
    """Let ``torch._dynamo`` be imported only when something is compiled; if it is imported already, do nothing.

    Copying a parameter and making or stepping an optimiser import it (torch/_compile.py, torch/optim/optimizer.py), in
    order to keep themselves out of compiled code. That is more than half of the time of a small run.
    """
    if NAME not in sys.modules:
        sys.modules[NAME] = DeferredDynamo(NAME)


class DeferredDynamo(ModuleType):
    """Does what eager code asks of ``torch._dynamo``, which is nothing, and becomes the real one for all else."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        # Importing a submodule asks for __path__. Other such names are asked for by tools that look at every module.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        return getattr(_real(), name)

    def graph_break(self, *_arguments: Any, **_named: Any) -> None:  # noqa: ANN401
        """Do nothing: outside compiled code there is no graph to break."""

    def disable(self, fn: Any = None, recursive: bool = True, **named: Any) -> Any:  # noqa: ANN401
        """Return ``fn`` for eager code; from the moment that the real module is there, what that makes of it."""
        if not callable(fn):
            return _real().disable(fn, recursive, **named)
        return _disabled_when_imported(fn, recursive, named)


def _disabled_when_imported(fn: Callable[..., Any], recursive: bool, named: dict[str, Any]) -> Callable[..., Any]:
    @functools.cache
    def disabled() -> Callable[..., Any]:
        result: Callable[..., Any] = _real().disable(fn, recursive, **named)
        return result

    @functools.wraps(fn)
    def deferred(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        # torch keeps this function for good: it has to be right after an import, too.
        function = fn if isinstance(sys.modules[NAME], DeferredDynamo) else disabled()
        return function(*arguments, **keywords)

    return deferred


def _real() -> Any:  # noqa: ANN401
    # A lock of our own: threads that compute side by side may need it at the same time.
    with _lock:
        if isinstance(sys.modules.get(NAME), DeferredDynamo):
            del sys.modules[NAME]
        return importlib.import_module(NAME)
