"""A guard around every call into a plugin: an exception comes out as one line that names the plugin.

`guarded` guards one call. `guarded_class` guards a component: it subclasses the class that a plugin registered, so that
the methods that its kind defines are called through the guard, wherever they are called from.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from harness.errors import DDBenchError, PluginError, error_line
from harness.plugins.redirection import stdout_to_stderr
from harness.system.signals import interrupts_noted, is_from_outside

T = TypeVar("T")


class PluginFault(PluginError):
    """An exception that a plugin's code raised.

    Attributes:
        error: the original exception.
    """

    def __init__(self, call: str, error: BaseException) -> None:
        itself = ", and no signal came: the plugin did it itself" if isinstance(error, KeyboardInterrupt) else ""
        super().__init__(f"{call} {error_line(error).rstrip(': ')}{itself}")
        self.error = error


@contextmanager
def guarded(call: str, passes: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Guard a call into a plugin; what the plugin prints goes to stderr.

    Errors that name a remedy for the user pass unchanged, and so does Ctrl-C.

    Args:
        call: the code and the request, up to the word before the exception: ``importing x raised``.
        passes: further exceptions that pass unchanged.

    Raises:
        PluginFault: it raised anything else, be it `SystemExit` or a `KeyboardInterrupt` without a signal.
    """
    # Standard output belongs to results, which other programs parse; a plugin's print must not end up between them.
    with stdout_to_stderr(), interrupts_noted():
        try:
            yield
        except BaseException as error:
            if isinstance(error, (DDBenchError, *passes)):
                raise
            if isinstance(error, KeyboardInterrupt) and is_from_outside():
                raise
            raise PluginFault(call, error) from error


class Call(NamedTuple):
    """How a failed call is reported: the words of the message, and the exceptions that pass unchanged.

    An exception that fails a cell passes with its traceback for the cell's log: the cell's label names the component.
    """

    words: str = "{name}() raised"
    passes: tuple[type[BaseException], ...] = ()


_ASKED, _READ, _AT_WORK = Call(), Call("{name} raised"), Call(passes=(Exception,))
_CALLS: dict[str, dict[str, Call]] = {
    "method": {
        **dict.fromkeys(("step", "distilled", "learned", "state", "restore", "make_artifact"), _AT_WORK),
        **dict.fromkeys(("needs", "settings", "notes", "work", "refusal"), _ASKED),
        **dict.fromkeys(("pool_refusal", "watch_images"), _ASKED),
        **dict.fromkeys(("draws", "loads_weights"), _READ),
    },
    "pool": {
        **dict.fromkeys(("distribution", "distribution_of", "observe", "state", "restore"), _ASKED),
        **dict.fromkeys(("probes_at", "probed", "combine", "starts_from", "prepare"), _ASKED),
        **dict.fromkeys(("main", "adapts", "watches_gradients", "probe", "replays", "together"), _READ),
    },
    "parametrisation": dict.fromkeys(("initial", "decode", "constrain", "check", "storage_bits"), _AT_WORK),
    "evaluator": {
        **dict.fromkeys(("evaluate", "make_artifact"), _AT_WORK),
        **dict.fromkeys(("protocol", "protocols", "artifact", "unsuited", "work"), _ASKED),
        "uses_real_data": _READ,
    },
    "metric": {"measure": _AT_WORK, "check": _ASKED, "work": _ASKED},
    "architecture": {
        **dict.fromkeys(("network", "build"), Call("cannot be built:")),
        **dict.fromkeys(("augmentations", "pretrained"), _READ),
    },
    "dataset": {"load": _ASKED, "prepare": Call(passes=(OSError,)), "traits": _READ},
    # A full disk is no fault of a format: whoever asked for the file says so.
    "format": {
        **dict.fromkeys(("recognises", "read", "check_shape", "refusal"), _ASKED),
        "write": Call(passes=(OSError,)),
    },
    "report": {"render": Call("cannot be made:"), "suffix": _READ},
    "tracker": {},  # observers are isolated where they are called
    "executor": {"start": _ASKED, "close": _ASKED, "slots": _READ, "poll_seconds": _READ},
}
"""The methods and properties, by kind, that authors define and the harness calls."""


@functools.lru_cache(maxsize=1024)
def guarded_class(cls: Any, kind: str, base: Any) -> Any:  # noqa: ANN401
    """Return a subclass of a component's class whose calls are guarded; inherited defaults stay as they are.

    Its instances name themselves by the attribute ``ddbench_name``, which `harness.plugins.registry.Resolved` sets.
    """
    namespace: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    namespace["ddbench_name"] = f"{kind} {cls.__name__}"
    namespace["__reduce_ex__"] = lambda self, protocol: (_itself, (_plain(self, cls),))
    for name, call in _CALLS[kind].items():
        defined = _lookup(cls, name)
        if defined is _lookup(base, name):
            continue
        if isinstance(defined, property | functools.cached_property):
            namespace[name] = property(_reader(cls, name, call))
        elif callable(defined) or isinstance(defined, staticmethod | classmethod):
            namespace[name] = _caller(cls, name, call)
    # A subclass made by plain ``type`` would conflict with the author's metaclass.
    metaclass: Any = type(cls)  # the author's, if there is one
    return metaclass(cls.__name__, (cls,), namespace)


def _lookup(cls: type[Any], name: str) -> Any:  # noqa: ANN401
    return next((vars(parent)[name] for parent in cls.__mro__ if name in vars(parent)), None)


def _plain(instance: Any, cls: type[Any]) -> Any:  # noqa: ANN401
    """Return the instance without its guard: another process can only unpickle the author's own class."""
    plain: Any = object.__new__(cls)
    vars(plain).update(vars(instance))
    return plain


def _itself(instance: T) -> T:
    return instance


def _reader(cls: type[Any], name: str, call: Call) -> Callable[[Any], Any]:
    def read(self: Any) -> Any:  # noqa: ANN401
        with guarded(_words(self, name, call), call.passes):
            return _own(cls, self, name)

    return read


def _caller(cls: type[Any], name: str, call: Call) -> Callable[..., Any]:
    @functools.wraps(getattr(cls, name))
    def calls(self: Any, *args: Any, **named: Any) -> Any:  # noqa: ANN401
        words = _words(self, name, call)
        with guarded(words, call.passes):
            answer = _own(cls, self, name)(*args, **named)
        return _guarded_each(answer, words, call) if name == "evaluate" else answer

    return calls


def _own(cls: type[Any], instance: Any, name: str) -> Any:  # noqa: ANN401
    """Return an attribute as the author's class defines it, bound to the instance."""
    defined = _lookup(cls, name)
    return defined.__get__(instance, type(instance)) if hasattr(defined, "__get__") else defined


def _words(instance: Any, name: str, call: Call) -> str:  # noqa: ANN401
    words = call.words.format(name=name)
    return f"{instance.ddbench_name} {words}" if words.endswith(":") else f"{instance.ddbench_name}: {words}"


def _guarded_each(records: Any, words: str, call: Call) -> Iterator[Any]:  # noqa: ANN401
    """Guard each step of a generator: the author's code runs again for every value."""
    if not isinstance(records, Iterable):
        who = words.removesuffix(" raised")
        raise PluginError(f"{who} returned {type(records).__name__}, but promises an Iterator")
    with guarded(words, call.passes):
        records = iter(records)
    while True:
        with guarded(words, call.passes):
            try:
                record = next(records)
            except StopIteration:
                return
        yield record
