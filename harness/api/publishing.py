"""What ``ddbench publish`` does: share a distilled set on the Hugging Face hub, with its picture and its card."""

import io
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.api.conversion import read_set
from harness.api.hub import SET_FILE, HubName, upload
from harness.errors import UsageError
from harness.planning.request import Request
from harness.report.cards.dataset_card import CARD, dataset_card
from harness.report.cards.public_facts import Private
from harness.running.set_picture import draw_grid
from harness.types.formats import Reading, serialized
from harness.types.formats.content import in_one_line
from harness.types.plurals import counted

PICTURE = "images.png"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")


@dataclass(frozen=True)
class Publication:
    """A set that was shared.

    Attributes:
        name: of the repository.
        address: where the hub shows it.
        commit: that holds these files.
        files: the content of each by its name.
        dataset: the data set that the set was distilled from; None if it is not known.
        notes: what the user should know of the file that was read.
    """

    name: HubName
    address: str
    commit: str
    files: Mapping[str, bytes]
    dataset: str | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        size = sum(map(len, self.files.values()))
        what = f"{', '.join(self.files)} ({counted(size, 'byte')})"
        words = ["ddbench", "eval", str(HubName(self.name.repository, self.commit))]
        # Without a data set, eval takes the digits.
        words += ["--dataset", self.dataset or "NAME"]
        return f"published {what} at {self.address}; `{shlex.join(words)}` evaluates it"


def publish(
    source: str,
    name: HubName,
    *,
    reading: Reading = Reading(),  # noqa: B008
    dataset: str | None = None,
    store: Path | None = None,
    private: bool = False,
    licence: str | None = None,
) -> Publication:
    """Write a set into a repository of the hub: its file, its picture and a card, and nothing private.

    Args:
        source: a file, a folder, or the beginning of a key.
        name: of the repository, and the branch to write to.
        reading: how a file is read, if its content does not say.
        dataset: completes what a file does not say.
        store: holds the key, or students on the file.
        private: whether a repository that is created for it is private.
        licence: identifier of the source data's licence; None for what is known of the data set.

    Raises:
        UsageError: an argument is wrong, or the package or a token is missing.
        DataError: the source cannot be used or would give away something private, or the hub refuses it.
        StoreError: the store or a record cannot be read.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageError(f"--license {in_one_line(licence)}: give an identifier of the hub, such as mit or cc-by-4.0")
    read = read_set(source, reading, dataset, store)
    distilled = read.shareable()
    picture = io.BytesIO()
    draw_grid(distilled, picture)
    where = str(HubName(name.repository))
    card = dataset_card(distilled, where, licence=licence or read.licence, picture=PICTURE)
    files = {SET_FILE: serialized(distilled), PICTURE: picture.getvalue(), CARD: card.encode()}
    Private.here(store or Request.store, Path(source)).check(distilled, files)
    address, commit = upload(name, files, f"A distilled set: {where}", private=private)
    named = read.distilled.provenance.get("dataset")
    return Publication(name, address, commit, files, named if isinstance(named, str) else None, read.notes)
