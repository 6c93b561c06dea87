"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hecompile import files
from hecompile.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.atomic_write_text(target, "old\r\n")
    files.atomic_write_text(target, "new\r\n")
    assert target.read_bytes() == b"new\r\n"
    assert names(tmp_path) == ["a.txt"]


def test_write_sets_the_mode_from_the_first_moment(tmp_path: Path) -> None:
    target = tmp_path / "key"
    files.atomic_write_bytes(target, b"secret", 0o600)
    assert target.stat().st_mode & 0o777 == 0o600


def test_exclusive_write_keeps_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "key"
    target.write_bytes(b"first")
    with pytest.raises(FileExistsError):
        files.atomic_write_bytes(target, b"second", exclusive=True)
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["key"]


def test_write_replaces_a_link_not_its_target(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    link = tmp_path / "link"
    link.symlink_to(victim)
    files.atomic_write_bytes(link, b"new")
    assert victim.read_bytes() == b"keep"
    assert not link.is_symlink()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise stop

    monkeypatch.setattr(os, "fsync", fail)
    expected = InputError if isinstance(stop, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        files.atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("path", ["missing/a", "file/a", "folder", ".", ".."])
def test_impossible_places_are_refused_in_one_sentence(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        files.atomic_write_bytes(f"{tmp_path}/{path}", b"x")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError, SystemExit])
def test_interrupted_folder_disappears(tmp_path: Path, stop: type[BaseException]) -> None:
    def fill() -> None:
        with files.atomic_directory(tmp_path / "out") as folder:
            (folder / "half").write_text("half")
            raise stop

    with pytest.raises(stop):
        fill()
    assert names(tmp_path) == []


def test_folder_appears_whole(tmp_path: Path) -> None:
    with files.atomic_directory(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_text("x")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "sub" / "x").read_text() == "x"
    assert names(tmp_path) == ["out"]


def test_existing_folder_is_refused_or_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(InputError, match="exists already"), files.atomic_directory(out):
        pytest.fail("the block must not run")
    with files.atomic_directory(out, overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


def test_old_folder_comes_back_when_the_new_one_cannot_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target == out and not (self / "old").exists():
            raise KeyboardInterrupt
        return rename(self, target)

    def replace() -> None:
        with files.atomic_directory(out, overwrite=True) as folder:
            (folder / "new").write_text("new")
            monkeypatch.setattr(Path, "rename", interrupted)

    with pytest.raises(KeyboardInterrupt):
        replace()
    assert names(out) == ["old"]
    assert names(tmp_path) == ["out"]


KILLED = """
import os, signal, sys
from pathlib import Path
from hecompile import files
if sys.argv[2] == "aside":
    rename = Path.rename
    def die(self, target):
        if self.name == "new":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)
    Path.rename = die
with files.atomic_directory(sys.argv[1], overwrite=True) as folder:
    (folder / "half").write_text("half")
    if sys.argv[2] == "halfway":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(target: Path, when: str) -> Path:
    """Kill a process that fills a folder; give what it leaves."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), when], check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = target.parent.glob(".out.*.partial")
    return left


def test_a_folder_in_the_making_is_closed_to_others_and_then_as_usual(tmp_path: Path) -> None:
    with files.atomic_directory(tmp_path / "out"):
        [beside] = tmp_path.iterdir()
        assert beside.stat().st_mode & 0o777 == 0o700
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode
    with files.atomic_directory(tmp_path / "secret") as folder:
        folder.chmod(0o700)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o700


def test_what_a_killed_process_left_is_closed_and_cleared_by_the_next(tmp_path: Path) -> None:
    left = killed(tmp_path / "out", "halfway")
    assert left.stat().st_mode & 0o777 == 0o700
    with files.atomic_directory(tmp_path / "other"):
        pass
    assert left.exists()
    with files.atomic_directory(tmp_path / "out") as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path) == ["other", "out"]
    assert names(tmp_path / "out") == ["new"]


def test_what_a_killed_process_had_put_aside_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("old")
    killed(out, "aside")
    assert not out.exists()
    with pytest.raises(InputError, match="exists already"), files.atomic_directory(out):
        pytest.fail("the block must not run")
    assert names(out) == ["precious"]
    assert names(tmp_path) == ["out"]


def test_what_others_are_making_is_left_alone(tmp_path: Path) -> None:
    with files.atomic_directory(tmp_path / "out") as first:
        (first / "first").write_text("")
        with files.atomic_directory(tmp_path / "out") as second:
            assert (first / "first").exists()
            (second / "second").write_text("")
        with pytest.raises(InputError, match="exists already"):
            files.atomic_directory(tmp_path / "out").__enter__()
        (tmp_path / "out").rename(tmp_path / "done")
    assert names(tmp_path) == ["done", "out"]


def test_only_folders_of_ones_own_are_taken_for_leftovers(tmp_path: Path) -> None:
    kept = [f".out.{digit * 16}.partial" for digit in "abc"]
    (tmp_path / "precious").mkdir()
    (tmp_path / kept[0]).symlink_to(tmp_path / "precious")
    (tmp_path / kept[1]).write_text("a file that another call is writing")
    os.mkfifo(tmp_path / kept[2])
    (tmp_path / ".out.old.partial").mkdir()
    with files.atomic_directory(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted([*kept, ".out.old.partial", "out", "precious"])


def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("data")
    place = files.atomic_directory(tmp_path / "out", overwrite=True)
    with pytest.raises(InputError, match="is not a folder"), place:
        pytest.fail("the block must not run")


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert files.sha256_bytes(b"abc") == files.sha256_file(tmp_path / "a") == expected
    with pytest.raises(InputError, match="cannot read"):
        files.sha256_file(tmp_path / "b")


def test_config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HECOMPILE_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
    assert files.config_home() == tmp_path / ".config" / "hecompile"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert files.config_home() == Path("/xdg/hecompile")
    monkeypatch.setenv("HECOMPILE_HOME", "/own")
    assert files.config_home() == Path("/own")


def test_private_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = files.private_folder(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        files.private_folder(tmp_path / "file" / "b")


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (pipe, folder):
        with pytest.raises(InputError, match="no regular file, so it is not replaced"):
            files.atomic_write_bytes(place, b"x")
    assert pipe.is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]
