"""The zip form of a bundle: nothing in it leads out, hides bytes or unpacks without bound."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path

import pytest

from hecompile.access.manifest import MANIFEST_NAME
from hecompile.bundle import sources
from hecompile.bundle.sources import ArchiveSource
from hecompile.bundle.store import NotABundleError, open_bundle_files, write_bundle
from hecompile.errors import HecompileError, IntegrityError
from tests.unit.manifests import FILES, KEY, MANIFEST, TRUSTED, write


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "demo.hec"
    write(path)
    return path


def refuse(path: Path, *words: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        open_bundle_files(path, TRUSTED)
    message = str(caught.value).replace(str(path), "BUNDLE")
    assert "\n" not in message
    for word in words:
        assert word in message


def plain_entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def rezip(
    path: Path, more: list[tuple[zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path) as old:
        entries = [(plain_entry(name), old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(path, "w") as new:
        for info, data in [*entries, *more]:
            new.writestr(info, data, method)


def test_the_same_entries_in_another_zip_are_accepted(archive: Path) -> None:
    rezip(archive, [], zipfile.ZIP_DEFLATED)
    open_bundle_files(archive, TRUSTED)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/cron.d/evil", "a/../../evil", "..\\evil", "C:/evil", "a\x00b", "a/"]
)
def test_names_that_lead_out_of_the_zip(archive: Path, tmp_path: Path, name: str) -> None:
    info = plain_entry("placeholder")
    info.filename = info.orig_filename = name
    rezip(archive, [(info, b"" if name.endswith("/") else b"x")])
    refuse(archive, "holds a file named")
    assert [path.name for path in tmp_path.iterdir()] == ["demo.hec"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["report.json", "manifest.json", "users.json", "REPORT.json"])
def test_a_name_twice_in_the_zip(archive: Path, name: str) -> None:
    rezip(archive, [(plain_entry(name), b"evil")])
    refuse(archive, f"holds file {name} twice")


def test_an_extra_entry(archive: Path) -> None:
    rezip(archive, [(plain_entry("server/evil.py"), b"x")])
    refuse(archive, "server/evil.py", "does not list")


@pytest.mark.parametrize("kind", ["link", "comment", "extra", "date", "bzip2"])
def test_entries_that_are_no_plain_files(archive: Path, kind: str) -> None:
    info = plain_entry("server/evil")
    method = zipfile.ZIP_STORED
    if kind == "link":
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    elif kind == "comment":
        info.comment = b"hidden"
    elif kind == "extra":
        info.extra = b"\x99\x99\x01\x00x"
    elif kind == "date":
        info.date_time = (2024, 1, 1, 0, 0, 0)
    else:
        method = zipfile.ZIP_BZIP2
    rezip(archive, [(info, b"/etc/passwd")], method)
    refuse(archive, "not stored as a plain file")


def test_a_bomb_is_refused_before_it_is_unpacked(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rezip(archive, [(plain_entry("server/bomb"), bytes(8 << 20))], zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zlib, "decompressobj", lambda *args: pytest.fail("unpacked"))
    refuse(archive, "server/bomb", "would unpack to 8388608 bytes")


def test_total_size_and_number_of_files_are_capped(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 1000)
    refuse(archive, "more than 1000 bytes")
    monkeypatch.setattr(sources, "MAX_FILES", 4)
    refuse(archive, "more than 4 files")


def test_an_entry_that_lies_about_its_size(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    place = data.rindex(b"server/constants.npz") - 46 + 24
    data[place : place + 4] = (5).to_bytes(4, "little")
    archive.write_bytes(data)
    refuse(archive, "server/constants.npz")


def test_every_cut_of_the_zip_is_refused(archive: Path) -> None:
    whole = archive.read_bytes()
    for length in range(0, len(whole), 11):
        archive.write_bytes(whole[:length])
        with pytest.raises((IntegrityError, NotABundleError)):
            open_bundle_files(archive, TRUSTED)


def test_bytes_around_the_zip_are_refused(archive: Path) -> None:
    whole = archive.read_bytes()
    for changed in (whole + b"x", b"PK" + whole, whole + whole):
        archive.write_bytes(changed)
        refuse(archive)


def test_no_changed_bit_beside_the_packed_data_is_accepted(archive: Path) -> None:
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive) as found:
        packed = {
            position
            for info in found.infolist()
            for start in [info.header_offset + 30 + len(info.filename)]
            for position in range(start, start + info.compress_size)
            if info.compress_type == zipfile.ZIP_DEFLATED
        }
    good = contents(archive)
    for position in range(len(whole)):
        for bit in (1, 0x10) if position % 2 else (4, 0x80):
            changed = bytearray(whole)
            changed[position] ^= bit
            archive.write_bytes(changed)
            try:
                found_now = contents(archive)
            except HecompileError:
                continue
            # Another way to pack the same data, such as in the bits that fill up a block.
            assert position in packed
            assert found_now == good


def contents(archive: Path) -> dict[str, bytes]:
    files = ArchiveSource(archive)
    return {name: b"".join(files.pieces(name)) for name in (*files.sizes(), MANIFEST_NAME)}


def test_bytes_after_the_packed_data_are_refused(archive: Path) -> None:
    hidden = b"hidden"
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as found:
        info = next(one for one in found.infolist() if one.filename == "server/program.hir")
        later = [one for one in found.infolist() if one.header_offset > info.header_offset]
        start = found.start_dir
    assert info.compress_type == zipfile.ZIP_DEFLATED
    end = info.header_offset + 30 + len(info.filename) + info.compress_size
    size = (info.compress_size + len(hidden)).to_bytes(4, "little")
    data[info.header_offset + 18 : info.header_offset + 22] = size
    place = data.rindex(info.filename.encode()) - 46
    data[place + 20 : place + 24] = size
    for one in later:
        place = data.rindex(one.filename.encode()) - 46
        data[place + 42 : place + 46] = (one.header_offset + len(hidden)).to_bytes(4, "little")
    data[-6:-2] = (start + len(hidden)).to_bytes(4, "little")
    data[end:end] = hidden
    archive.write_bytes(data)
    # The zip library does not see them.
    with zipfile.ZipFile(archive) as found:
        assert found.read("server/program.hir") == FILES["server/program.hir"]
    refuse(archive, "server/program.hir", "has not the size that it states")


def test_content_that_packs_too_well_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "zeros.hec"
    zeros = bytes(3 << 20)
    assert len(zlib.compress(zeros)) * sources.MAX_RATIO < len(zeros)
    write_bundle(path, {"server/zeros": zeros}, MANIFEST, KEY)
    assert open_bundle_files(path, TRUSTED).read("server/zeros") == zeros
