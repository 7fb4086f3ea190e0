"""Distilled sets on the Hugging Face hub: upload and download, with errors of one line."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import DataError, UsageError
from harness.system.packages import require_packages
from harness.types.formats import Reading
from harness.types.formats.content import in_one_line
from harness.types.formats.limits import MOST_BYTES

PREFIX = "hf:"
SET_FILE = "set.safetensors"
"""The set in a repository, as `ddbench publish` writes it."""
_OWN_FORMAT = "ddbench:safetensors"
NEEDS = {"huggingface_hub": "ddbench[hub]"}
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_REVISION = re.compile(r"[\w.-][\w./-]*")
_LONGEST_REASON = 200


@dataclass(frozen=True)
class HubName:
    """The name of a data set on the hub: ``OWNER/NAME``, and a branch, tag or commit; None for the default branch."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Return the name that ``hf:OWNER/NAME@REVISION`` or ``OWNER/NAME`` says.

        Raises:
            UsageError: it is no such name.
        """
        repository, at, revision = text.removeprefix(PREFIX).partition("@")
        if not _REPOSITORY.fullmatch(repository) or (at and not _REVISION.fullmatch(revision)):
            raise UsageError(f"{text!r} is no repository: give OWNER/NAME, or {PREFIX}OWNER/NAME@REVISION to read it")
        return cls(repository, revision or None)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}{f'@{self.revision}' if self.revision else ''}"


def upload(name: HubName, files: Mapping[str, bytes], message: str, *, private: bool) -> tuple[str, str]:
    """Write files into a data set on the hub in one commit, and return its address and the commit.

    Args:
        name: of the repository, which is created if there is none.
        files: the content of each by its name.
        message: of the commit.
        private: whether a repository that is created here is private.

    Raises:
        UsageError: the package or a token is missing.
        DataError: the hub refuses it, or cannot be reached.
    """
    require_packages("ddbench publish", NEEDS)
    from huggingface_hub import CommitOperationAdd, get_token

    if get_token() is None:
        remedy = "`hf auth login`, or a token with write access in HF_TOKEN"
        raise UsageError(f"there is no token by which the hub knows who publishes: {remedy}")
    with _errors_of(name):
        api = _api()
        created = api.create_repo(name.repository, repo_type="dataset", private=private, exist_ok=True)
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        commit = api.create_commit(
            name.repository, operations, commit_message=message, repo_type="dataset", revision=name.revision
        )
    return str(created), str(commit.oid)


def fetch(name: HubName) -> tuple[Path, str]:
    """Return the file of a set on the hub, in the hub's own cache, and the commit that it is of.

    Nothing of it has been read yet: it comes from anybody.

    Raises:
        UsageError: the package is missing.
        DataError: there is no such repository, revision or set, or the hub cannot be reached.
    """
    require_packages(str(name), NEEDS)
    from huggingface_hub import hf_hub_download

    with _errors_of(name):
        info = _api().dataset_info(name.repository, revision=name.revision, files_metadata=True)
        sizes = {file.rfilename: file.size for file in info.siblings or ()}
        if SET_FILE not in sizes:
            raise DataError(f"{name} has no {SET_FILE}: it is no set that `ddbench publish` wrote")
        # Asked for before anything is written: a repository may hold what no disk does.
        if (sizes[SET_FILE] or 0) > MOST_BYTES:
            raise DataError(
                f"{SET_FILE} of {name} is {sizes[SET_FILE]:,} bytes, and a set takes at most {MOST_BYTES:,}"
            )
        commit = str(info.sha)
        path = hf_hub_download(
            name.repository, SET_FILE, repo_type="dataset", revision=commit, endpoint=_endpoint(), cache_dir=_cache()
        )
    return Path(path), commit


def is_shared(path: Path) -> bool:
    """Return whether a path is the name of a set on the hub: it begins with ``hf:``."""
    return str(path).startswith(PREFIX)


def shared_file(path: Path, reading: Reading) -> tuple[Path, Reading, str]:
    """Return the file of a set on the hub, how it is read, and a line that says which commit it is.

    Raises:
        UsageError: it is no name of a set, or options say how to read another format.
        DataError: it cannot be fetched.
    """
    if reading.format is not None or reading.entry != Reading.entry:
        raise UsageError(f"{path} is one set in ddbench's own format: leave out --from and --entry")
    name = HubName.parse(str(path))
    file, commit = fetch(name)
    # No other format has a say in what comes from the hub, whoever wrote it.
    return file, replace(reading, format=_OWN_FORMAT), f"{HubName(name.repository)} at commit {in_one_line(commit)}"


def _api() -> Any:  # noqa: ANN401
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return HfApi(endpoint=_endpoint(), library_name="ddbench", library_version=__version__)


def _endpoint() -> str | None:
    # The package reads the environment when it is imported, which another library may have done long before.
    return os.environ.get("HF_ENDPOINT") or None


def _cache() -> str | None:
    return os.environ.get("HF_HUB_CACHE") or None


@contextmanager
def _errors_of(name: HubName) -> Iterator[None]:
    """Turn what the package raises into one line that says what is wrong with a name."""
    from huggingface_hub import errors

    where = _endpoint() or "the hub"
    try:
        yield
    except DataError:
        raise
    except errors.RevisionNotFoundError:
        raise DataError(f"{PREFIX}{name.repository} has no revision {name.revision!r}") from None
    except errors.GatedRepoError:
        raise DataError(f"{name} is gated: ask for access at {where}, and `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"there is no data set {name.repository} at {where}, or it is private: check the name, or `hf auth login`"
        ) from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            remedy = f"use one with the right to it, by `hf auth login` or HF_TOKEN ({_reason(error)})"
            raise DataError(f"{where} does not accept the token for {name}: {remedy}") from None
        raise DataError(f"{where} refuses {name}: {_reason(error)}") from None
    except errors.HFValidationError as error:
        raise UsageError(f"{name.repository!r} is no repository: {_reason(error)}") from None
    except (errors.HfUriError, ValueError, RuntimeError) as error:
        raise DataError(f"{where} refuses {name}: {_reason(error)}") from None
    except (OSError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(name, error) from None
    except Exception as error:
        # Errors of the transport have no base class in Python's library, and another one from version to version.
        if not type(error).__module__.startswith("httpx"):
            raise
        raise _unreachable(name, error) from None


def _unreachable(name: HubName, error: Exception) -> DataError:
    where = _endpoint() or "the hub"
    return DataError(
        f"{where} cannot be reached for {name}: {_reason(error)}; check the network, and HF_ENDPOINT if it is set"
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return in_one_line((lines or [type(error).__name__])[0])[:_LONGEST_REASON]
