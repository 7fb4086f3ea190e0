"""The files of a run: what was asked for in ``run.json``, and its jobs with their cells in ``plan.json``."""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.store import event_files
from harness.store.cells import Cell
from harness.store.files.folders import entries_of
from harness.store.files.reading import DamagedFile, open_plain, read_checked, with_checksum
from harness.store.records import SCHEMA, Count, first_error
from harness.system.whole_files import hidden_beside, sync, write_whole

REQUEST_FILE, PLAN_FILE = "run.json", "plan.json"
EVENTS, LOG = ".events", ".log"
"""How a job's files end."""
_AGAIN = "give the command of that run again"
_MOST_PLAN = 2**30
"""Bytes: three million cells."""
F = TypeVar("F", bound="_File")
_ListedCell = tuple[str, str, str, list[Annotated[int, Field(ge=0, strict=True)]]]
"""Key, kind, label, and the numbers of the cells of the plan that it needs."""


class PlannedJob(Protocol):
    """A job as the plan of a run lists it."""

    @property
    def key(self) -> str:
        """Its key, which depends on what it makes and not on what is there already."""
        ...

    @property
    def label(self) -> str:
        """What it makes, for people."""
        ...

    @property
    def after(self) -> Sequence[str]:
        """Keys of the jobs whose artifacts it needs."""
        ...

    @property
    def cells(self) -> Sequence[Cell]:
        """What it makes, in order."""
        ...


class _File(BaseModel):
    """What both have: no value is converted."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    schema_: Count = Field(alias="schema")


class RequestFile(_File):
    """A run as it was asked for.

    Attributes:
        folder: the working directory.
        request: the options by name.
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

    key: str = ""
    label: str = ""
    after: list[str] = []
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
        """Those of all jobs, as the numbers of those needed count them."""
        return [cell for job in self.jobs for cell in job.cells]


def read_request(folder: Path) -> RequestFile:
    """What was asked for.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be read.
    """
    return _read(folder / REQUEST_FILE, RequestFile)


def read_plan(folder: Path) -> PlanFile:
    """The jobs of a run.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be read.
    """
    plan = _read(folder / PLAN_FILE, PlanFile, _MOST_PLAN)
    number = len(plan.cells)
    if any(needed >= number for _, _, _, needs in plan.cells for needed in needs):
        raise DamagedFile(folder / PLAN_FILE, f"a cell needs one beyond its {number}")
    return plan


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
            "cells": [
                [cell.key, cell.kind, cell.label, [numbers[needed.key] for needed in needs.get(cell.key, ())]]
                for cell in job.cells
            ],
        }
        for job in jobs
    ]


def write_run(folder: Path, request: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Write both files: into a folder that is new both at once, so that neither is ever without the other.

    Raises:
        OSError: they cannot be written.
    """
    if not folder.is_dir():
        hidden = hidden_beside(folder)
        try:
            hidden.mkdir()
            _write(hidden, request, plan)
            hidden.rename(folder)
            sync(folder.parent)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else the same command is given twice at once
                raise
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    _write(folder, request, plan)


def damages(folder: Path) -> Iterator[str]:
    """What is wrong with the files of a run, each with the remedy; those of other names are an executor's."""
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
