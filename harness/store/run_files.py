"""The files of a run: its request in ``run.json``, and its jobs with their cells in ``plan.json``."""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import StoreError
from harness.store import event_files
from harness.store.cells import Cell
from harness.store.files.folders import entries_of
from harness.store.files.reading import DamagedFile, open_plain, read_checked, with_checksum
from harness.store.records import SCHEMA, Count, first_error
from harness.system.whole_files import hidden_beside, sync, write_whole

REQUEST_FILE, PLAN_FILE = "run.json", "plan.json"
EVENTS, LOG = ".events", ".log"
"""Suffixes of a job's files."""
_AGAIN = "give the command of that run again"
_MOST_PLAN = 2**30
"""Bytes, enough for three million cells."""
F = TypeVar("F", bound="_File")
_ListedCell = tuple[str, str, str, list[Annotated[int, Field(ge=0, strict=True)]]]
"""Key, kind, label, and the numbers of the cells of the plan that it needs."""


class PlanScope(BaseModel):
    """The part of a plan that a job belongs to: the trajectories of a method on a data set through a pool.

    Attributes:
        dataset, method, pool: names as tables show them; no pool if the method draws no network.
        ipc: images per class; None if the method does not ask.
    """

    model_config = ConfigDict(frozen=True, strict=True)
    dataset: str
    method: str
    pool: str | None
    ipc: int | None


class PlannedJob(Protocol):
    """A job as the plan of a run lists it."""

    @property
    def key(self) -> str:
        """The key of the job, which depends on what it makes and not on what the store already holds."""
        ...

    @property
    def label(self) -> str:
        """Name of what the job makes, for people."""
        ...

    @property
    def after(self) -> Sequence[str]:
        """Keys of the jobs whose artifacts the job needs."""
        ...

    @property
    def scope(self) -> PlanScope | None:
        """The part of the plan that is enough to do the job; None if that is the whole plan."""
        ...

    @property
    def cells(self) -> Sequence[Cell]:
        """The cells that the job makes, in order."""
        ...


class _File(BaseModel):
    """Base of both files: no value is converted."""

    # Unlike in records, fields of other versions are dropped: these files are written anew by each command.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    schema_: Count = Field(alias="schema")


class RequestFile(_File):
    """A run as the user asked for it.

    Attributes:
        folder: the working directory of the command.
        request: its options by name.
    """

    model_config = ConfigDict(strict=True)
    folder: str
    request: dict[str, Any]
    file: str | None
    reading: dict[str, Any] | None
    hold_out: bool
    arms: list[Count] | None


class ListedJob(BaseModel):
    """A job of a plan."""

    # With defaults, because status needs the cells alone: a plan that lacks the others is still of use.
    key: str = ""
    label: str = ""
    after: list[str] = []
    scope: PlanScope | None = None
    cells: list[_ListedCell]


class PlanFile(_File):
    """The jobs of a run."""

    run: str
    label: str
    created: str
    executor: str
    jobs: list[ListedJob]

    @property
    def cells(self) -> list[_ListedCell]:
        """The cells of all jobs, in the order that the numbers of needed cells refer to."""
        return [cell for job in self.jobs for cell in job.cells]


def read_request(folder: Path) -> RequestFile:
    """Return the request of a run.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be read.
    """
    return _read(folder / REQUEST_FILE, RequestFile)


def read_plan(folder: Path) -> PlanFile:
    """Return the jobs of a run.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be read.
    """
    plan = _read(folder / PLAN_FILE, PlanFile, _MOST_PLAN)
    number = len(plan.cells)
    if any(needed >= number for _, _, _, needs in plan.cells for needed in needs):
        raise DamagedFile(folder / PLAN_FILE, f"a cell needs one beyond its {number}")
    return plan


def read_job(folder: Path, key: str) -> ListedJob:
    """Return the job of a run with this key.

    Raises:
        StoreError: the run has no plan that can be read, or no such job in it.
    """
    try:
        jobs = read_plan(folder).jobs
    except (OSError, StoreError) as error:
        raise StoreError(f"{error}: {_AGAIN}") from None
    for job in jobs:
        if job.key == key:
            return job
    raise StoreError(f"{folder / PLAN_FILE} has no job {key}: {_AGAIN}")


def list_jobs(jobs: Sequence[PlannedJob], needs: Mapping[str, Sequence[Cell]]) -> list[dict[str, Any]]:
    """Return the jobs as ``plan.json`` holds them.

    Args:
        jobs: the jobs of the plan.
        needs: by the key of a cell, the cells that it needs.
    """
    numbers = {cell.key: number for number, cell in enumerate(cell for job in jobs for cell in job.cells)}
    return [
        {
            "key": job.key,
            "label": job.label,
            "after": list(job.after),
            "scope": job.scope.model_dump() if job.scope else None,
            "cells": [
                [cell.key, cell.kind, cell.label, [numbers[needed.key] for needed in needs.get(cell.key, ())]]
                for cell in job.cells
            ],
        }
        for job in jobs
    ]


def write_run(folder: Path, request: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Write the request and the plan of a run; into a new folder both at once.

    Raises:
        OSError: they cannot be written.
    """
    # A worker that starts on another machine reads both: it must never find one without the other.
    if not folder.is_dir():
        hidden = hidden_beside(folder)
        try:
            hidden.mkdir()
            _write(hidden, request, plan)
            hidden.rename(folder)
            sync(folder.parent)
            return
        except OSError as error:
            # The folder has appeared meanwhile: the same command was given twice at once, and both ask for the same.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    _write(folder, request, plan)


def damages(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a run, each with the remedy."""
    # Files of other names belong to executors, which alone know what is in them.
    for read, name in ((read_request, REQUEST_FILE), (read_plan, PLAN_FILE)):
        try:
            read(folder)
        except FileNotFoundError:
            yield f"{folder / name} is missing: {_AGAIN}"
        except DamagedFile as damage:
            yield f"{damage}: {_AGAIN}"
    for path in (Path(entry.path) for entry in entries_of(folder)):
        if path.suffix == EVENTS:
            yield from event_files.damages(path)
        elif path.suffix == LOG:
            yield from _log_damages(path)


def _log_damages(path: Path) -> Iterator[str]:
    try:
        with open_plain(path):
            return
    except FileNotFoundError:
        return
    except DamagedFile as damage:
        yield f"{damage}: move it away"


def _write(folder: Path, request: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    write_whole(folder / REQUEST_FILE, json.dumps(with_checksum({"schema": SCHEMA, **request}), indent=1))
    write_whole(folder / PLAN_FILE, json.dumps(with_checksum({"schema": SCHEMA, **plan})))


def _read(path: Path, kind: type[F], most: int = 2**28) -> F:
    fields = [field.alias or name for name, field in kind.model_fields.items()]
    content = read_checked(path, fields, most)
    try:
        if isinstance(content["schema"], int) and content["schema"] > SCHEMA:
            raise DamagedFile(path, "it is of a newer ddbench")
        return kind.model_validate(content)
    except ValidationError as error:
        raise DamagedFile(path, first_error(error)) from None
