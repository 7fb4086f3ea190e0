"""The container of a packed store: a tar file compressed by xz, written in one way only and read strictly.

Records of one store repeat each other. xz sees them as one text (400 records take 130 kB), while zip compresses every
member alone and needs several times as much; and any tar program can look into the file or unpack it. What zip could
do better, reading a single member, is not needed: records lie in front, so that a reader of scores stops before the
tensors.

The first member, ``pack.json``, lists all others in their order, with sizes and SHA-256, under a checksum of its own.
The reader accepts only that sequence of plain files, each with a name that can occur in a store, and so needs no
defence against links, devices, absolute or repeated names one by one. It parses the headers itself: `tarfile` obeys
extended headers, which can promise any size and change names.
"""

import hashlib
import io
import json
import lzma
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from harness.store.files.folders import CELLS, DATA, FAILURES, MARKER, RECORD
from harness.store.files.left_out import LEFT_OUT
from harness.store.files.reading import MOST_BYTES, DamagedFile, digest_of, open_plain, parse_checked, with_checksum
from harness.store.records import KEY

MANIFEST = "pack.json"
FORMATS = (1, 2)
"""The formats that are read; files with descriptions of data, which older versions refuse, have the second."""
MOST_FILES = 2**20
MOST_PER_BYTE, SMALL = 1000, 2**28
"""Maximum number of unpacked bytes for each packed one, and in all for a small file: a bomb would fill the disk."""
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
_MOST_MEMORY = 2**27
"""Memory in bytes that xz may take to read: preset 9 needs half of it, and a header could ask for 4 GiB."""
_MAGIC, _FOOTER = b"\xfd7zXZ\0", b"YZ"
_BLOCK, _CHUNK = tarfile.BLOCKSIZE, 2**20
_END = 2 * tarfile.RECORDSIZE
"""Maximum number of zeros at the end, in bytes."""
_NAME = re.compile(
    rf"{re.escape(MARKER)}|{re.escape(LEFT_OUT)}"
    rf"|{CELLS}/(?P<shelf>[0-9a-f]{{2}})/(?P=shelf)[0-9a-f]{{0,62}}-[1-9][0-9]{{0,17}}/[^/\0.][^/\0]*"
    rf"|{FAILURES}/{KEY}\.(?:json|log)"
    rf"|{DATA}/{KEY}/(?:description\.json|images\.png)",
    re.ASCII,
)
Content = Path | bytes


class Member(NamedTuple):
    """A file in the archive, as the manifest lists it."""

    name: str
    size: int
    digest: str

    @property
    def is_record(self) -> bool:
        """Whether scores need the file: all but the files beside the records of cells."""
        return not self.name.startswith(f"{CELLS}/") or self.name.endswith(f"/{RECORD}")


class UnwritableFolder(Exception):
    """The reason why a sound archive cannot be unpacked: its folder has no room, or cannot be written."""


class _WrongArchive(Exception):
    """Raised when an archive is refused; the message is the reason."""


def write_archive(file: Path, sources: Mapping[str, Content]) -> None:
    """Write files into an archive; the same names with the same content give the same bytes.

    Args:
        file: the archive, which is overwritten.
        sources: by name in the archive, the file to read or the content.

    Raises:
        ValueError: a name does not fit, or there are too many.
        DamagedFile: a file is missing or cannot be read.
        OSError: the archive cannot be written.
    """
    members = sorted((_member(name, source) for name, source in sources.items()), key=_order)
    if len(members) > MOST_FILES:
        raise ValueError(f"it has {len(members):,} files, and a packed store has at most {MOST_FILES:,}: pack a part")
    manifest = json.dumps(
        with_checksum({"format": _format_of(members), "files": members}), separators=(",", ":")
    ).encode()
    # USTAR has no extended headers, which the reader refuses; a name that does not fit into its 255 bytes is an error.
    with (
        lzma.open(file, "wb", format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=_FILTERS) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        archive.addfile(_header(MANIFEST, len(manifest)), io.BytesIO(manifest))
        for member in members:
            with _opened(sources[member.name]) as content:
                archive.addfile(_header(member.name, member.size), content)


def _format_of(members: Sequence[Member]) -> int:
    """Return the lowest format that holds these files, so that older versions read all that they can."""
    return FORMATS[any(member.name.startswith(f"{DATA}/") for member in members)]


def is_name(name: str) -> bool:
    """Return whether a packed store can have a file of this name."""
    return _NAME.fullmatch(name) is not None


def extract(file: Path, folder: Path | None, *, records_only: bool = False) -> list[Member]:
    """Write the files of an archive into an empty folder, each checked against its digest.

    Args:
        file: the archive.
        folder: None to check the archive only.
        records_only: stop in front of the first file that scores do not need.

    Returns:
        The members that the manifest lists.

    Raises:
        DamagedFile: it is not such an archive, is damaged, or holds what no store does.
        UnwritableFolder: the folder has no room for the files, or cannot be written.
    """
    try:
        with open_plain(file) as packed:
            size = _checked_size(packed)
            stream = _DecompressingReader(packed)
            members = _read_manifest(stream)
            selected = [member for member in members if member.is_record or not records_only]
            _check_sizes(selected, size, folder)
            for member in members[: len(selected)]:  # records come first
                _extract_member(stream, member, folder)
            if not records_only:
                stream.expect_end()
            return members
    except FileNotFoundError:
        raise DamagedFile(file, "there is no such file") from None
    except _WrongArchive as reason:
        raise DamagedFile(file, str(reason)) from None


def _member(name: str, source: Content) -> Member:
    if not is_name(name):
        raise ValueError(f"a packed store has no place for {name!r:.200}")
    if isinstance(source, bytes):
        return Member(name, len(source), hashlib.sha256(source).hexdigest())
    try:
        return Member(name, source.stat().st_size, digest_of(source))
    except FileNotFoundError:
        raise DamagedFile(source, "there is none") from None


def _order(member: Member) -> tuple[bool, str]:
    return not member.is_record, member.name


def _header(name: str, size: int) -> tarfile.TarInfo:
    """Return a header that names neither the owner nor the time of a file."""
    # Otherwise two people who pack the same store would get different bytes, and the file would name its author.
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = size, 0o644, 0
    return header


@contextmanager
def _opened(source: Content) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    with open_plain(source) as file:
        yield file


class _DecompressingReader:
    """Reader of the decompressed bytes of a file, which never holds more of them than were requested."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes."""
        parts, missing = [], size
        while missing:
            part = self._some(missing)
            if not part:
                raise _WrongArchive("it ends too early")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def header(self) -> tarfile.TarInfo:
        """Return the header of the next member."""
        block = self.read(_BLOCK)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise _WrongArchive(f"a header in it cannot be read: {error}") from None
        if header.type != tarfile.REGTYPE:
            raise _WrongArchive(
                f"it holds {_kind(header)} {header.name!r:.120}, and a packed store has plain files only"
            )
        return header

    def expect_end(self) -> None:
        """Check that only the zeros follow that end a tar file."""
        # Their number is bounded: zeros compress so well that a small file could keep the reader busy for hours.
        rest = bytearray()
        while len(rest) <= _END and (part := self._some(_CHUNK)):
            rest += part
        if len(rest) < 2 * _BLOCK:
            raise _WrongArchive("it ends too early")
        if any(rest) or len(rest) > _END or self._decoder.unused_data or self._packed.read(1):
            raise _WrongArchive(f"something follows on what its {MANIFEST} lists")

    def _some(self, most: int) -> bytes:
        """Return at least one decompressed byte; none at the end of the file."""
        try:
            while not self._decoder.eof:
                # A decoder that holds back output must not be fed: it would keep the input too, without a bound.
                compressed = self._packed.read(_CHUNK) if self._decoder.needs_input else b""
                part = self._decoder.decompress(compressed, most)
                if part:
                    return part
                if not compressed and self._decoder.needs_input:
                    raise _WrongArchive("it ends too early")
        except lzma.LZMAError as error:
            raise _WrongArchive(f"xz cannot read it: {error}") from None
        return b""


def _kind(header: tarfile.TarInfo) -> str:
    if header.issym() or header.islnk():
        return "the link"
    if header.isdev():
        return "the device or pipe"
    return "the folder" if header.isdir() else "the special entry"


def _read_manifest(stream: _DecompressingReader) -> list[Member]:
    header = stream.header()
    if header.name != MANIFEST:
        raise _WrongArchive(f"it begins with {header.name!r:.120} and not with {MANIFEST}")
    if not 0 < header.size <= MOST_BYTES:
        raise _WrongArchive(f"its {MANIFEST} has {header.size:,} bytes")
    try:
        manifest = parse_checked(_read_padded(stream, header.size), ("format", "files"))
        packing_format = manifest["format"]
        if type(packing_format) is int and packing_format > FORMATS[-1]:
            raise _WrongArchive("it was packed by a newer ddbench: use that")
        if type(packing_format) is not int or packing_format not in FORMATS:
            raise ValueError(f"{packing_format!r:.120} is not a format")
        members = [_listed_member(entry) for entry in manifest["files"]]
    except (TypeError, ValueError) as error:
        raise _WrongArchive(f"its {MANIFEST} cannot be used: {error}") from None
    ((name, count),) = Counter(member.name for member in members).most_common(1) or [("", 0)]
    if count > 1:
        raise _WrongArchive(f"it lists {name!r:.120} twice")
    if [_order(member) for member in members] != sorted(map(_order, members)):
        raise _WrongArchive("its files are not in order")
    return members


def _listed_member(entry: Sequence[object]) -> Member:
    """Return an entry of the manifest, or raise TypeError or ValueError."""
    name, size, digest = entry
    if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool) or not isinstance(digest, str):
        raise TypeError(f"{str(entry)[:120]} is not a name, a size and a digest")
    if not is_name(name):
        raise _WrongArchive(f"it lists {name!r:.120}, and a store has no place for that")
    if size < 0:
        raise ValueError(f"{name} has {size:,} bytes")
    return Member(name, size, digest)


def _check_sizes(members: Sequence[Member], packed: int, folder: Path | None) -> None:
    """Check the sizes in the manifest before anything is written."""
    if len(members) > MOST_FILES:
        raise _WrongArchive(f"it lists {len(members):,} files, and a packed store has at most {MOST_FILES:,}")
    size = sum(member.size for member in members)
    if size > max(SMALL, MOST_PER_BYTE * packed):
        raise _WrongArchive(f"it promises {size:,} bytes in {packed:,}: that is not a store")
    for member in members:
        if member.is_record and not member.name.endswith(".log") and member.size > MOST_BYTES:
            raise _WrongArchive(f"it promises {member.size:,} bytes for {member.name}: that is not a record")
    if folder and size > (free := shutil.disk_usage(folder).free):
        raise UnwritableFolder(f"{size:,} bytes are needed, and it has room for {free:,}")


def _extract_member(stream: _DecompressingReader, member: Member, folder: Path | None) -> None:
    header = stream.header()
    if header.name != member.name:
        raise _WrongArchive(f"it holds {header.name!r:.120} where {member.name!r} is listed")
    if header.size != member.size:
        raise _WrongArchive(f"{member.name} has {header.size:,} bytes, and {member.size:,} are listed")
    digest = hashlib.sha256()
    if folder is None:
        _copy(stream, member.size, digest.update)
    else:
        with _created(folder / member.name) as file:

            def write(part: bytes) -> None:
                digest.update(part)
                file.write(part)

            _copy(stream, member.size, write)
    if digest.hexdigest() != member.digest:
        raise _WrongArchive(f"{member.name} was altered: its digest is that of something else")


@contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """Create a file to write, or raise `UnwritableFolder`."""
    # Left as an OSError, a full disk would be reported as damage to the archive, which is open around this for reading.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x": the folder was empty, so that a name that exists now was listed twice.
        with path.open("xb") as file:
            yield file
    except OSError as error:
        raise UnwritableFolder(error.strerror or str(error)) from None


def _copy(stream: _DecompressingReader, size: int, write: Callable[[bytes], object]) -> None:
    for start in range(0, size, _CHUNK):
        write(stream.read(min(_CHUNK, size - start)))
    if any(stream.read(-size % _BLOCK)):
        raise _WrongArchive("something hides between its files")


def _read_padded(stream: _DecompressingReader, size: int) -> bytes:
    content = bytearray()
    _copy(stream, size, content.extend)
    return bytes(content)


def _checked_size(file: IO[bytes]) -> int:
    """Return the size of a file that begins and ends as xz files do."""
    # So that a file that was cut off is noticed also by a reader that stops in front of the tensors.
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _WrongArchive("it is not an xz file")
    size = file.seek(0, io.SEEK_END)
    file.seek(size - len(_FOOTER))
    if file.read() != _FOOTER:
        raise _WrongArchive("it ends too early, or something follows on it")
    file.seek(0)
    return size
