"""Folders of keys: found, their cards read and vouched for, then their files, each checked."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from hecompile.access.key_cards import MAX_SIGNATURE_BYTES, SIGNATURE_FILE, KeyClaim
from hecompile.errors import InputError, IntegrityError, UsageError
from hecompile.files import cannot_read, sha256_bytes
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.keycard import MAX_CARD_BYTES, KeyCard, Role, card_from_json, check_key
from hecompile.runtime.serial import key_file_limit


@dataclass(frozen=True)
class KeySource:
    """Where a party's serialised keys come from.

    Attributes:
        card: What is there.
        where: The folder, for messages.
        read: Gives the checked bytes of a file.
        folder: The folder; None for keys that are in memory only.
        digest: SHA-256 of its key.json.
    """

    card: KeyCard
    where: str
    read: Callable[[str], bytes] = field(repr=False)
    folder: Path | None = None
    digest: str = ""

    def name(self, file: str) -> str:
        """Name of a file, for messages."""
        return f"{self.where}/{file}"


class CardCheck(Protocol):
    """Refuses a folder of public or evaluation keys before anything but its card is read."""

    def check(self, claim: KeyClaim, signatures: bytes | None) -> None:
        """Raise where these keys are not to be used.

        Args:
            claim: What the folder says.
            signatures: The bytes of its `key.sig`; None where it has none.
        """


@dataclass(frozen=True)
class ExactCard:
    """Takes the one key.json of this SHA-256: keys that were looked at, or made, by this program.

    Attributes:
        digest: SHA-256 of the key.json.
    """

    digest: str

    def check(self, claim: KeyClaim, signatures: bytes | None) -> None:
        """See `CardCheck`; signatures are not looked at again.

        Raises:
            IntegrityError: The folder has another key.json.
        """
        if sha256_bytes(claim.card) != self.digest:
            raise IntegrityError(
                f"the keys in {claim.where} were exchanged while they were used; get a fresh copy."
            )


def open_folder(
    folder: str | Path,
    role: Role,
    parameters: Parameters,
    program: str,
    manifest: str,
    cards: CardCheck | None = None,
) -> KeySource:
    """Find a role's folder, itself or inside `folder`, and check what its key.json says.

    Args:
        folder: Where the keys are.
        role: Which of them.
        parameters: The parameters they must be for.
        program: Identity of the program they must be for.
        manifest: Digest of the manifest of the bundle they must be for.
        cards: Knows who may sign keys of the bundle; a program in no bundle needs none, nor does
            the secret key, which is authenticated by what it is encrypted under.

    Raises:
        InputError: There is none.
        IntegrityError: The keys are another role's, another program's, of another bundle or for
            other parameters, or nobody vouches for them.
        UsageError: Keys of a bundle are asked for without `cards`.
    """
    place = role_folder(folder, role)
    source, claim = read_card(place, role)
    check_key(source.card, program, manifest, parameters, f"the keys in {place}")
    if role is Role.SECRET:
        _check_private(place, source.card)
    elif cards is not None:
        cards.check(claim, signatures_beside(place))
    elif manifest:
        raise UsageError(
            f"the {role.value} keys of a bundle are signed: give what knows its users (cards=...)"
        )
    return source


def role_folder(folder: str | Path, role: Role) -> Path:
    """A role's folder: inside `folder` where there is one, else `folder` itself."""
    inside = Path(folder) / role.value
    return inside if (inside / KeyCard.FILE).is_file() else Path(folder)


def read_card(place: Path, role: Role | None = None) -> tuple[KeySource, KeyClaim]:
    """Read the key.json of a role's folder; nobody has vouched for it yet.

    Args:
        place: The folder.
        role: Whose it must be; None for whichever it is.

    Raises:
        InputError: There is none.
        IntegrityError: It is malformed, or another role's.
    """
    data = _card_bytes(place, role)
    card = card_from_json(data, str(place / KeyCard.FILE))
    if role is not None and card.role is not role:
        raise IntegrityError(
            f"{place} holds the {card.role.value} key, not the {role.value} key; name the folder"
            " that holds it."
        )

    def read(name: str) -> bytes:
        return _read_checked(place, name, card)

    created = datetime.fromisoformat(card.created)
    claim = KeyClaim(card.role.value, card.key_id, created, data, str(place))
    return KeySource(card, str(place), read, place, sha256_bytes(data)), claim


def signatures_beside(place: Path) -> bytes | None:
    """The bytes of a folder's key.sig, one more than allowed at most; None where it has none.

    Raises:
        InputError: It cannot be read.
    """
    path = place / SIGNATURE_FILE
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read(path, error) from error


def _check_private(place: Path, card: KeyCard) -> None:
    """Refuse a secret key that is not encrypted, or whose folder is open to other users."""
    if card.wrapped is None:
        raise IntegrityError(
            f"the secret key in {place} is not encrypted; make new keys with hecompile keygen."
        )
    try:
        for path in (place, *(place / name for name in card.files)):
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise IntegrityError(
                    f"other users may read or change {path}; run chmod -R go= on {place}."
                )
    except FileNotFoundError:
        # Reading it says what is missing.
        return
    except OSError as error:
        raise cannot_read(place, error) from error


def _card_bytes(place: Path, role: Role | None) -> bytes:
    path = place / KeyCard.FILE
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_CARD_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"there is no {role or 'such'} key in {place} ({path.name} is missing); make keys with"
            " hecompile keygen, or name the folder that holds them."
        ) from None
    except OSError as error:
        raise cannot_read(path, error) from error


def _read_checked(place: Path, name: str, card: KeyCard) -> bytes:
    """Read a key file whose size and SHA-256 must be those of its key.json."""
    path = place / name
    if name not in card.files:
        raise InputError(f"{place} lists no {name}; make new keys with hecompile keygen.")
    digest, size = card.files[name]
    try:
        with path.open("rb") as stream:
            data = stream.read(min(size, key_file_limit(card.parameters)) + 1)
    except FileNotFoundError:
        raise InputError(
            f"the key file {path} is missing; make new keys with hecompile keygen."
        ) from None
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(data) != size or sha256_bytes(data) != digest:
        raise IntegrityError(
            f"the key file {path} was changed: it does not match its {KeyCard.FILE}; make new keys"
            " with hecompile keygen."
        )
    return data
