"""Opening of stored sets: a file names its parametrisation, and the registry knows the code of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
from torch import Tensor

from harness.errors import DataError
from harness.plugins.discovery import plugins
from harness.plugins.registry import OWN, Resolved
from harness.plugins.set_formats import read_content
from harness.types.data.preprocessing import Preprocessing
from harness.types.distilled import DistilledSet
from harness.types.formats import LAST, OWN_FORMAT, Reading
from harness.types.parametrisation import Encoding, Parametrisation, StoredEncoding
from harness.types.problem import Shape

KIND = "parametrisation"
_LONGEST_NAME = 200


def load_distilled(
    path: str | Path,
    *,
    entry: int = LAST,
    format: str | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    step_size: float | None = None,
) -> DistilledSet:
    """Read a distilled set; ``TensorDataset(*load_distilled(path))`` is ready for training.

    Args:
        path: a file or folder in one of the formats that ``ddbench formats`` lists.
        entry: index of the set in a file that holds several; the last by default.
        format: its format with options, ``idc[factor=2]``; recognised by its content by default.
        preprocessing: the preprocessing of images or pixels, if the file does not describe it.
        classes: the class names, if the file does not hold them.
        step_size: the learned step size, if the file does not hold it.

    Raises:
        UsageError: there is no such format, or it has no such option, or several formats recognise the file.
        DataError: the file cannot be read, is not of these formats, or holds unusable values, or no installed plugin
            has its parametrisation.
    """
    content = read_content(Path(path), Reading(entry, format))
    return content.completed(opened, preprocessing, classes, step_size)


def load_stored(path: Path) -> DistilledSet:
    """Read a set of a store, always in ddbench's own format: no plugin's format has a say in it.

    Raises:
        DataError: the file cannot be read, or no installed plugin has its parametrisation.
    """
    return OWN_FORMAT.read(path).completed(opened)


def open_encoding(name: str, shape: Shape, tensors: Mapping[str, Tensor] | None = None) -> Encoding:
    """Return the encoding of a set by a parametrisation.

    Args:
        name: the parametrisation with its options, ``multi-formation[factor=2]``.
        shape: channels, height and width of a training image.
        tensors: the tensors that are stored beside ``images``.

    Raises:
        UsageError: there is no such parametrisation, or it has no such option.
        PluginError: it cannot be loaded.
    """
    return _encoding(plugins().registry.resolve(KIND, name), shape, tensors or {})


def opened(stored: StoredEncoding, shape: Shape) -> Encoding:
    """Return the encoding that a file describes.

    Args:
        stored: what the file says.
        shape: channels, height and width of a training image.

    Raises:
        DataError: no installed plugin has the parametrisation, or it does not take the options.
        PluginError: it cannot be loaded.
    """
    registry = plugins().registry
    entries = [e for e in registry.of_kind(KIND) if (e.name, e.provider) == (stored.name, stored.provider)]
    if not entries:
        name, provider = (f"{text!r:.{_LONGEST_NAME}}" for text in (stored.name, stored.provider))
        # The name of a distribution comes from a file of unknown origin, so it is quoted and no command to paste.
        remedy = "use a newer ddbench" if stored.provider == OWN else f"install the plugin {provider}"
        absent = [str(row) for row in registry.absent if row.plugin.endswith(f" of {stored.provider}")]
        doubt = f" ({'; '.join(absent)})" if absent else ""
        raise DataError(f"its images are stored by the parametrisation {name} of {provider}: {remedy}{doubt}")
    cls = entries[0].load()
    try:
        # Strict, because a file holds JSON that options wrote themselves: a text in place of a number is damage.
        options = cls.Options.model_validate_json(json.dumps(dict(stored.options)), strict=True)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise DataError(f"the parametrisation {stored.name!r} does not take its options ({reason})") from None
    resolved: Resolved[Parametrisation[Any]] = Resolved(entries[0], cls, options)
    return _encoding(resolved, shape, stored.tensors)


def _encoding(resolved: Resolved[Parametrisation[Any]], shape: Shape, tensors: Mapping[str, Tensor]) -> Encoding:
    return Encoding(resolved.make(), resolved.entry.name, resolved.entry.provider, shape, tensors)
