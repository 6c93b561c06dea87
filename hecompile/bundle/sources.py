"""Where the bytes of a bundle come from: a folder, or one zip file; neither is believed.

A source lists the files with their sizes and reads one in pieces. It refuses what could lead out
of the bundle, hide bytes or grow without bound: links, special files, odd names, entries that
overlap or are described in two ways, decompression bombs. All that is left free in a zip file is
how the contents of its files are packed.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from hecompile.access.manifest import MANIFEST_NAME, is_member_name
from hecompile.access.users import USERS_NAME
from hecompile.errors import InputError, IntegrityError
from hecompile.files import cannot_read

MAX_FILES = 10_000
MAX_TOTAL_BYTES = 8 << 30
MAX_RATIO = 200
_RATIO_FREE_BYTES = 1 << 20
_PIECE = 1 << 20
_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_LISTED = struct.Struct("<4s6H3L5H2L")
_ZIP_VERSION = 20
_MADE_BY_UNIX = 3
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = (stat.S_IFREG | 0o644) << 16


class NotABundleError(InputError):
    """The path does not exist or holds something else than a bundle."""


class Source(Protocol):
    """Files of a bundle before they are verified."""

    path: Path

    def sizes(self) -> Mapping[str, int]:
        """Every file but the manifest: name to size in bytes, as the source states it."""

    def pieces(self, name: str) -> Iterator[bytes]:
        """The contents of one file in pieces of at most 1 MiB."""


def open_source(path: str | Path) -> Source:
    """Look at a path and list what it holds.

    Raises:
        NotABundleError: Nothing there is a bundle.
        IntegrityError: It is one, but holds a file that no bundle may hold.
    """
    place = Path(path)
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        raise NotABundleError(
            f"bundle {path} does not exist; check the path, or make it with hecompile compile"
        ) from None
    except OSError as error:
        raise cannot_read(place, error) from error
    if stat.S_ISDIR(mode):
        return FolderSource(place)
    if stat.S_ISREG(mode):
        return ArchiveSource(place)
    raise NotABundleError(f"{path} is neither a folder nor a file; name a bundle")


def no_manifest(path: Path) -> NotABundleError:
    """The error for a folder or zip file without a manifest."""
    return NotABundleError(f"{path} is not a bundle: it has no {MANIFEST_NAME}; name a bundle")


def read_member(source: Source, name: str, limit: int) -> bytes:
    """The contents of one file, which may have at most `limit` bytes.

    Raises:
        IntegrityError: It is larger, or cannot be read.
    """
    data = bytearray()
    for piece in source.pieces(name):
        data += piece
        if len(data) > limit:
            raise changed(source.path, name)
    return bytes(data)


def changed(path: Path, name: str) -> IntegrityError:
    """The error for a file that is not as signed."""
    return IntegrityError(
        f"file {name} of bundle {path} was changed: it does not match the signed manifest; get a "
        "fresh copy"
    )


def _check_name(path: Path, name: str) -> None:
    if name not in (MANIFEST_NAME, USERS_NAME) and not is_member_name(name):
        raise IntegrityError(
            f"bundle {path} holds a file named {name[:100]!r}, which no bundle may hold; "
            "get a fresh copy"
        )


class FolderSource:
    """A bundle in a folder."""

    def __init__(self, path: Path) -> None:
        """List the files below `path`, following no link.

        Raises:
            NotABundleError: The folder has no manifest.
            IntegrityError: It holds a link, a special file, an odd name or an empty folder.
        """
        self.path = path
        if not os.path.lexists(path / MANIFEST_NAME):
            raise no_manifest(path)
        try:
            self._sizes = dict(self._scan(""))
        except OSError as error:
            raise cannot_read(path, error) from error
        if self._sizes.pop(MANIFEST_NAME, None) is None:
            raise no_manifest(path)

    def sizes(self) -> Mapping[str, int]:
        """Every file but the manifest: name to size in bytes."""
        return self._sizes

    def pieces(self, name: str) -> Iterator[bytes]:
        """The contents of one file; no part of its path may be a link.

        Raises:
            IntegrityError: The file cannot be read.
        """
        try:
            with os.fdopen(self._open(name), "rb") as stream:
                while piece := stream.read(_PIECE):
                    yield piece
        except OSError as error:
            reason = error.strerror or str(error)
            raise IntegrityError(
                f"file {name} of bundle {self.path} cannot be read: {reason}; get a fresh copy"
            ) from error

    def _scan(self, folder: str) -> Iterator[tuple[str, int]]:
        entries = sorted(os.scandir(self.path / folder), key=lambda entry: entry.name)
        if not entries and folder:
            raise IntegrityError(
                f"bundle {self.path} holds the empty folder {folder}; remove it or get a fresh copy"
            )
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            _check_name(self.path, name)
            if entry.is_symlink():
                raise IntegrityError(
                    f"bundle {self.path} holds the symbolic link {name}; replace it by the file"
                )
            if entry.is_dir(follow_symlinks=False):
                yield from self._scan(name)
            elif entry.is_file(follow_symlinks=False):
                yield name, entry.stat(follow_symlinks=False).st_size
            else:
                raise IntegrityError(f"bundle {self.path} holds {name}, which is not a plain file")

    def _open(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC
        *folders, last = name.split("/")
        here = os.open(self.path, flags | os.O_DIRECTORY)
        try:
            for folder in folders:
                inner = os.open(folder, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                os.close(here)
                here = inner
            return os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
        finally:
            os.close(here)


class ArchiveSource:
    """A bundle in one zip file, of the plain kind that `archive_entry` describes."""

    def __init__(self, path: Path) -> None:
        """List the entries of the zip file.

        Raises:
            NotABundleError: The file is not a zip file or has no manifest.
            IntegrityError: The zip file is damaged or not as a bundle's is.
        """
        self.path = path
        try:
            entries = self._end_record()
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise self._damaged("its list of files cannot be read") from error
        except OSError as error:
            raise cannot_read(path, error) from error
        self._check(infos, entries)
        self._entries = {info.filename: info for info in infos}
        self._sizes = {info.filename: info.file_size for info in infos}
        if self._sizes.pop(MANIFEST_NAME, None) is None:
            raise no_manifest(path)

    def sizes(self) -> Mapping[str, int]:
        """Every file but the manifest: name to size in bytes once unpacked."""
        return self._sizes

    def pieces(self, name: str) -> Iterator[bytes]:
        """The unpacked contents of one entry.

        Raises:
            IntegrityError: The entry is damaged or gone.
        """
        try:
            with self.path.open("rb") as stream:
                yield from self._unpack(stream, self._entries[name])
        except (zlib.error, KeyError, OSError) as error:
            raise self._damaged(f"file {name} cannot be unpacked") from error

    def _unpack(self, stream: BinaryIO, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Read an entry to its last byte: the zip library leaves alone what follows the data."""
        head = _local_header(info)
        stream.seek(info.header_offset)
        if stream.read(len(head)) != head:
            raise self._damaged(f"file {info.filename} is described in two ways")
        packed = info.compress_type == zipfile.ZIP_DEFLATED
        inflate = zlib.decompressobj(-zlib.MAX_WBITS) if packed else None
        left, size, checksum, waiting = info.compress_size, 0, 0, b""
        while left or waiting:
            raw = waiting or stream.read(min(left, _PIECE))
            left -= 0 if waiting else len(raw)
            piece = inflate.decompress(raw, _PIECE) if inflate is not None else raw
            waiting = inflate.unconsumed_tail if inflate is not None else b""
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
            if not raw or size > info.file_size or (inflate is not None and inflate.unused_data):
                raise self._damaged(f"file {info.filename} has not the size that it states")
            yield piece
        whole = inflate is None or inflate.eof
        if (whole, size, checksum) != (True, info.file_size, info.CRC):
            raise self._damaged(f"file {info.filename} is not what its checksum says")

    def _end_record(self) -> tuple[int, int, int, int]:
        """Number of entries, size and offset of their list, size of the file.

        Read before the zip library sees the file, to bound what it will load.
        """
        with self.path.open("rb") as stream:
            starts_as_zip = stream.read(2) == b"PK"
            size = stream.seek(0, os.SEEK_END)
            if not starts_as_zip:
                raise NotABundleError(f"{self.path} is not a bundle: it is not a zip file")
            stream.seek(max(0, size - _END.size))
            tail = stream.read(_END.size)
        if len(tail) < _END.size:
            raise self._damaged("it ends too early")
        mark, disk, list_disk, here, total, list_size, offset, comment = _END.unpack(tail)
        if mark != b"PK\5\6" or disk or list_disk or here != total or comment:
            raise self._damaged("its end is cut off or has bytes that belong to no file")
        if total > MAX_FILES:
            raise self._damaged(f"it lists more than {MAX_FILES} files")
        return total, list_size, offset, size

    def _check(self, infos: list[zipfile.ZipInfo], end: tuple[int, int, int, int]) -> None:
        total, list_size, offset, size = end
        seen: set[str] = set()
        for info in infos:
            _check_name(self.path, info.orig_filename)
            if info.filename.lower() in seen:
                raise self._damaged(f"it holds file {info.filename} twice")
            seen.add(info.filename.lower())
            self._check_entry(info)
        if sum(info.file_size for info in infos) > MAX_TOTAL_BYTES:
            raise self._damaged(f"it would unpack to more than {MAX_TOTAL_BYTES} bytes")
        expected = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset != expected:
                raise self._damaged(f"file {info.filename} is not where it should be")
            expected += _LOCAL.size + len(info.filename) + info.compress_size
        listed = sum(_LISTED.size + len(info.filename) for info in infos)
        whole = offset + list_size + _END.size
        if (len(infos), listed, expected, whole) != (total, list_size, offset, size):
            raise self._damaged("it has bytes that belong to no file")
        with self.path.open("rb") as stream:
            stream.seek(offset)
            if stream.read(list_size) != b"".join(map(_listed, infos)):
                raise self._damaged("its list of files is not spelt as it should be")

    def _check_entry(self, info: zipfile.ZipInfo) -> None:
        plain = (
            info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            and info.external_attr == _REGULAR_FILE
            and info.date_time == _ZIP_DATE
            and not (info.flag_bits or info.extra or info.comment)
        )
        if not plain:
            raise self._damaged(f"file {info.filename} is not stored as a plain file")
        large = info.file_size > _RATIO_FREE_BYTES
        if large and info.file_size > MAX_RATIO * info.compress_size:
            raise self._damaged(
                f"file {info.filename} would unpack to {info.file_size} bytes from "
                f"{info.compress_size}"
            )

    def _damaged(self, reason: str) -> IntegrityError:
        return IntegrityError(
            f"bundle {self.path} was changed, damaged or not made by hecompile: {reason}; "
            "get a fresh copy"
        )


def _local_header(info: zipfile.ZipInfo) -> bytes:
    """What must stand before the data of an entry that the list of files describes."""
    return _LOCAL.pack(b"PK\3\4", *_shared(info), 0) + info.filename.encode("ascii")


def _listed(info: zipfile.ZipInfo) -> bytes:
    """How an entry must stand in the list of files."""
    made_by = _MADE_BY_UNIX << 8 | _ZIP_VERSION
    rest = (0, 0, 0, 0, _REGULAR_FILE, info.header_offset)
    head = _LISTED.pack(b"PK\1\2", made_by, *_shared(info), *rest)
    return head + info.filename.encode("ascii")


def _shared(info: zipfile.ZipInfo) -> tuple[int, ...]:
    """The fields that stand before an entry and in the list of files alike."""
    year, month, day, *_ = _ZIP_DATE
    date = (year - 1980) << 9 | month << 5 | day
    sizes = (info.CRC, info.compress_size, info.file_size)
    return (_ZIP_VERSION, 0, info.compress_type, 0, date, *sizes, len(info.filename))


def archive_entry(name: str, data: bytes) -> zipfile.ZipInfo:
    """How a file stands in a bundle's zip file: equal contents give equal bytes.

    Contents that pack so well that the reader would take them for a bomb are stored unpacked.
    """
    info = zipfile.ZipInfo(name, _ZIP_DATE)
    info.create_system = _MADE_BY_UNIX
    info.external_attr = _REGULAR_FILE
    packed = len(zlib.compress(data)) if len(data) > _RATIO_FREE_BYTES else len(data)
    fits = len(data) <= packed * MAX_RATIO // 2
    info.compress_type = zipfile.ZIP_DEFLATED if fits else zipfile.ZIP_STORED
    return info


def is_archive_name(path: Path) -> bool:
    """Whether a bundle of that name is one zip file."""
    return path.suffix == ".hec"
