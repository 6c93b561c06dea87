"""Freshly made keys, in memory, and how they are laid down in folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hecompile.access.key_cards import SIGNATURE_FILE, sign_card
from hecompile.files import atomic_directory, atomic_write_bytes, cannot_write, sha256_bytes
from hecompile.runtime.key_folders import KeySource
from hecompile.runtime.keycard import KeyCard, Role

if TYPE_CHECKING:
    from hecompile.access.identity import Identity
    from hecompile.runtime.vault import Vault

SECRET_FILE: Final = "secret.key"
PUBLIC_FILE: Final = "public.key"


@dataclass(frozen=True)
class KeyRing:
    """Freshly generated keys, in memory.

    Attributes:
        key_id: SHA-256 of the public key.
        cards: What each folder's key.json says.
        files: Serialised keys by folder, then by file name.
    """

    key_id: str
    cards: Mapping[Role, KeyCard]
    files: Mapping[Role, Mapping[str, bytes]] = field(repr=False)

    def source(self, role: Role) -> KeySource:
        """One party's keys, without a detour over the disk."""
        files = self.files[role]
        card = self.cards[role]
        where, digest = f"the new {role.value} key", sha256_bytes(card.to_json())
        return KeySource(card, where, files.__getitem__, digest=digest)

    def save(
        self,
        folder: str | Path,
        roles: Iterable[Role] = tuple(Role),
        vault: Vault | None = None,
        identity: Identity | None = None,
    ) -> None:
        """Write the folders `secret/`, `public/` and `evaluation/`, or some, into a new folder.

        Args:
            folder: The folder to make.
            roles: Which of the three.
            vault: What wraps the secret key; None for the machine's own.
            identity: Who signs the two others; None leaves them unsigned.

        Raises:
            InputError: The folder exists or cannot be written.
        """
        with atomic_directory(folder) as place:
            for role in roles:
                if role is Role.SECRET:
                    self.write_secret(place / role.value, vault)
                else:
                    self._write_plain(place / role.value, role)
                    self.sign_folder(place, role, identity)

    def write_secret(self, place: Path, vault: Vault | None = None) -> None:
        """Write the encrypted secret key and an empty ledger of releases into a folder.

        Raises:
            HecompileError: The folder cannot be written, or the key not be wrapped.
        """
        from hecompile.access.ledger import ReleaseLedger
        from hecompile.runtime.vault import MachineVault, lock

        plain, card = self.files[Role.SECRET][SECRET_FILE], self.cards[Role.SECRET]
        sealed, wrapped = lock(plain, card.bound, vault or MachineVault())
        listed = {SECRET_FILE: (sha256_bytes(sealed), len(sealed))}
        card = replace(card, files=listed, wrapped=wrapped)
        make_folder(place, Role.SECRET)
        write_key(place, Role.SECRET, SECRET_FILE, sealed)
        write_key(place, Role.SECRET, KeyCard.FILE, card.to_json())
        ReleaseLedger(place, self.key_id).create()

    def write_public(self, place: Path) -> None:
        """Write the folder `public/` into a folder.

        Raises:
            InputError: It cannot be written.
        """
        self._write_plain(place / Role.PUBLIC.value, Role.PUBLIC)

    def sign_folder(self, place: Path, role: Role, identity: Identity | None) -> None:
        """Sign the key.json of `public/` or `evaluation/` in a folder, by whoever made the keys.

        Args:
            place: The folder that has the role's folder.
            role: Which one.
            identity: Who signs; None leaves it unsigned.

        Raises:
            InputError: The signature cannot be written.
        """
        if identity is not None:
            signed = sign_card(self.cards[role].to_json(), identity)
            write_key(place / role.value, role, SIGNATURE_FILE, signed)

    def _write_plain(self, place: Path, role: Role) -> None:
        make_folder(place, role)
        for name, data in self.files[role].items():
            write_key(place, role, name, data)
        write_key(place, role, KeyCard.FILE, self.cards[role].to_json())


def make_folder(folder: Path, role: Role) -> None:
    """Make a role's folder, the secret key's closed to other users.

    Raises:
        InputError: It cannot be made.
    """
    mode = 0o700 if role is Role.SECRET else 0o755
    try:
        folder.mkdir(mode=mode, exist_ok=True)
        if role is Role.SECRET:
            # The folder may have been made by somebody else, with another mode.
            folder.chmod(mode)
    except OSError as error:
        raise cannot_write(folder, error) from error


def write_key(folder: Path, role: Role, name: str, data: bytes) -> None:
    """Write a file into a role's folder, the secret key's closed to other users.

    Raises:
        InputError: It cannot be written.
    """
    atomic_write_bytes(folder / name, data, 0o600 if role is Role.SECRET else 0o644)
