"""Whether a folder that a client or an evaluator was given holds the secret key as well."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hecompile.access.records import parse_json
from hecompile.errors import HecompileError, IntegrityError
from hecompile.runtime.key_folders import role_folder
from hecompile.runtime.keycard import MAX_CARD_BYTES, KeyCard, Role
from hecompile.runtime.keyring import SECRET_FILE

MAX_ENTRIES: Final = 10_000
"""Most files and folders that are looked at."""


def check_handed_over(folder: str | Path, role: Role) -> None:
    """Refuse a folder of keys that holds the secret key, at any depth, or lies beside it.

    Looked for are files of the secret key's name and cards of its role: in the folder and all
    that it holds, links followed; and in the folder around the role's own and those directly in
    it. A key under another name is not found.

    Args:
        folder: What a client or an evaluator was given.
        role: The key that it is to hold.

    Raises:
        IntegrityError: The secret key is there, or too many files to look for it.
    """
    place = Path(folder).resolve()
    remedy = (
        f"hand over a copy of the {role.value} folder alone, or make keys with the secret part"
        " elsewhere (hecompile keygen --secret-dir)"
    )
    near = _near(place, role_folder(place, role).parent)
    for number, path in enumerate(near):
        if number >= MAX_ENTRIES:
            raise IntegrityError(
                f"there are more than {MAX_ENTRIES} files in and around {place}, too many to see"
                f" that the secret key is not among them; {remedy}."
            )
        if _is_secret(path):
            raise IntegrityError(
                f"the secret key lies in {path.parent}, where the holder of the {role.value} keys"
                f" could read it; {remedy}."
            )


def _near(place: Path, around: Path) -> Iterator[Path]:
    """Files in a folder at any depth, and those in the folder around it and directly in that."""
    yield from _files_below(place)
    if around == place:
        # The folder given holds the role's own.
        return
    for path in _entries(around):
        yield path
        if not path.is_symlink() and path.is_dir():
            yield path / SECRET_FILE
            yield path / KeyCard.FILE


def _files_below(place: Path) -> Iterator[Path]:
    waiting, visited = [place], {place}
    while waiting:
        for path in _entries(waiting.pop()):
            yield path
            target = path.resolve() if path.is_symlink() else path
            if target.is_dir() and target not in visited:
                visited.add(target)
                waiting.append(target)


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return [Path(entry.path) for entry in itertools.islice(found, MAX_ENTRIES + 1)]
    except OSError:
        # Reading the keys says what is missing; what is closed to this user is read by nobody here.
        return []


def _is_secret(path: Path) -> bool:
    """Whether a file is the secret key by its name, or the card of one."""
    try:
        if path.name.casefold() == SECRET_FILE:
            return path.is_file()
        if path.name.casefold() != KeyCard.FILE or not path.is_file():
            return False
        with path.open("rb") as stream:
            data = stream.read(MAX_CARD_BYTES + 1)
        card = parse_json(data, str(path), MAX_CARD_BYTES)
    except (OSError, HecompileError):
        # What is no card is refused as such where it is read.
        return False
    return isinstance(card, dict) and card.get("role") == Role.SECRET.value
