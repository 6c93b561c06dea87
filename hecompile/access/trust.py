"""Public keys whose signatures are accepted on this machine, and how many of them it takes."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # public there

from hecompile.errors import InputError, IntegrityError
from hecompile.files import (
    atomic_write_bytes,
    atomic_write_text,
    cannot_read,
    config_home,
    private_folder,
)

MAX_SIGNATURES: Final = 16
"""Most signatures that a document may bear."""

THRESHOLD_FILE: Final = "threshold"
USERS_FOLDER: Final = "users"
FOREIGN_ANY: Final = stat.S_IRWXG | stat.S_IRWXO
_FOREIGN_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_MAX_KEY_BYTES: Final = 16 << 10

_FIELD_PRIME: Final = 2**255 - 19
_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER: Final = frozenset(
    {0, 1, _FIELD_PRIME - 1, _ORDER_8, _FIELD_PRIME - _ORDER_8},
)
"""Second coordinates of the points of order 1, 2, 4 and 8: signatures by them can be made up."""


def check_point(key: bytes, source: str) -> None:
    """Refuse public keys under which anybody can sign, and second spellings of a key.

    Args:
        key: An Ed25519 public key, 32 bytes.
        source: What it is, for messages.

    Raises:
        InputError: It is of small order, or not spelt as RFC 8032 (section 5.1.2) spells it.
    """
    second = int.from_bytes(key, "little") % 2**255
    if second % _FIELD_PRIME in _SMALL_ORDER:
        raise InputError(f"{source} is a key under which anybody can sign; have a new one made")
    if second >= _FIELD_PRIME:
        raise InputError(f"{source} is no Ed25519 key in its one spelling; have a new one made")


@dataclass(frozen=True)
class PublicKey:
    """The public half of a signing key.

    Attributes:
        keyid: SHA-256 over the key, 64 hexadecimal digits.
        pem: The key in PEM (SubjectPublicKeyInfo).
    """

    keyid: str
    pem: bytes

    @classmethod
    def from_pem(cls, pem: bytes, source: str) -> PublicKey:
        """Read an Ed25519 public key; `source` names it in messages.

        Raises:
            InputError: The bytes are not such a key, or one under which anybody can sign.
        """
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"{source} is not a public key in PEM; give the .pub file of the signer"
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise InputError(f"{source} is not an Ed25519 key; only Ed25519 signatures are used")
        check_point(key.public_bytes(Encoding.Raw, PublicFormat.Raw), source)
        plain = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(SSlibKey.from_crypto(key).keyid, plain)

    @classmethod
    def load(cls, path: str | Path) -> PublicKey:
        """Read an Ed25519 public key from a PEM file.

        Raises:
            InputError: The file cannot be read or is not such a key.
        """
        try:
            with Path(path).open("rb") as stream:
                return cls.from_pem(stream.read(_MAX_KEY_BYTES), str(path))
        except OSError as error:
            raise cannot_read(Path(path), error) from error

    def verifier(self) -> SSlibKey:
        """The key as securesystemslib takes it."""
        return SSlibKey.from_crypto(load_pem_public_key(self.pem), self.keyid)


class TrustedKeys(tuple[PublicKey, ...]):
    """Keys whose signatures are accepted, each once.

    Attributes:
        threshold: How many of them must have signed a manifest, at least.
        delegates: Further keys that count for users documents alone, and only where a manifest
            names them.
    """

    threshold: int
    delegates: tuple[PublicKey, ...]

    def __new__(
        cls,
        keys: Iterable[PublicKey] = (),
        threshold: int = 1,
        delegates: Iterable[PublicKey] = (),
    ) -> Self:
        """Take the keys.

        Raises:
            InputError: The threshold is none that documents can reach.
        """
        check_threshold(threshold)
        found = super().__new__(cls, {key.keyid: key for key in keys}.values())
        found.threshold = threshold
        found.delegates = tuple({key.keyid: key for key in delegates}.values())
        return found

    @classmethod
    def of(cls, keys: Sequence[PublicKey]) -> TrustedKeys:
        """The keys as they are, or plain ones of which one signature is enough."""
        return keys if isinstance(keys, TrustedKeys) else cls(keys)

    def and_also(self, key: PublicKey) -> TrustedKeys:
        """These and one key more, on the same terms."""
        return TrustedKeys((*self, key), self.threshold, self.delegates)


def check_threshold(number: int) -> None:
    """Refuse a number of signatures that no document can have.

    Raises:
        InputError: The number is below 1 or above `MAX_SIGNATURES`.
    """
    if not 1 <= number <= MAX_SIGNATURES:
        raise InputError(
            f"a threshold of {number} signatures cannot be asked for; use 1 to {MAX_SIGNATURES}"
        )


class TrustStore:
    """A folder of public keys (`*.pub`, PEM) whose signatures are accepted.

    Its file `threshold` holds how many of them must have signed a manifest. Keys in its folder
    `users` count for users documents alone.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        """Use `folder`, by default `trusted` in the user's settings folder."""
        self.folder = Path(folder) if folder is not None else config_home() / "trusted"

    def add(self, key: PublicKey, *, users_only: bool = False) -> Path:
        """Trust a key from now on, for everything or for users documents alone.

        Returns:
            The file that holds it; removing the file withdraws the trust.

        Raises:
            InputError: The file cannot be written.
        """
        folder = private_folder(self.folder)
        if users_only:
            folder = private_folder(self.folder / USERS_FOLDER)
        path = folder / f"{key.keyid[:16]}.pub"
        atomic_write_bytes(path, key.pem, 0o600)
        return path

    def require(self, threshold: int) -> Path:
        """Ask for so many signatures on every manifest from now on.

        Returns:
            The file that holds the number; removing the file makes it 1 again.

        Raises:
            InputError: No document can have so many, or the file cannot be written.
        """
        check_threshold(threshold)
        path = private_folder(self.folder) / THRESHOLD_FILE
        atomic_write_text(path, f"{threshold}\n", 0o600)
        return path

    def load(self, extra: Sequence[str | Path] = ()) -> TrustedKeys:
        """All trusted keys.

        Args:
            extra: Further PEM files to trust this once.

        Raises:
            InputError: A file cannot be read or is no key.
            IntegrityError: Others than the user could have put a key into the folder, or the
                threshold is damaged.
        """
        found = [PublicKey.load(path) for path in extra]
        try:
            return TrustedKeys(
                [*found, *_keys_in(self.folder)],
                self._threshold(),
                _keys_in(self.folder / USERS_FOLDER),
            )
        except OSError as error:
            raise cannot_read(self.folder, error) from error

    def _threshold(self) -> int:
        path = self.folder / THRESHOLD_FILE
        if not os.path.lexists(path):
            return 1
        check_owner(path, path.stat(), _FOREIGN_WRITE, "go-w")
        with path.open("rb") as stream:
            text = stream.read(8).decode("ascii", "replace").strip()
        if not text.isdecimal() or not 1 <= int(text) <= MAX_SIGNATURES:
            raise IntegrityError(
                f"{path} holds no number of signatures from 1 to {MAX_SIGNATURES}; set it anew "
                "with hecompile trust --threshold K"
            )
        return int(text)


def check_owner(path: Path, found: os.stat_result, foreign: int, remedy: str) -> None:
    """Refuse a file of another user, or one whose mode has any bit of `foreign`.

    Raises:
        IntegrityError: Naming the file and the `chmod` that mends it.
    """
    if found.st_uid not in (os.geteuid(), 0):
        raise IntegrityError(f"{path} belongs to another user; use a file of your own")
    if stat.S_IMODE(found.st_mode) & foreign:
        raise IntegrityError(
            f"{path} is open to other users; make sure that nobody touched it, then run "
            f"chmod {remedy} {path}"
        )


def forget(path: Path) -> None:
    """Withdraw trust: remove a key's file if it is there."""
    with contextlib.suppress(OSError):
        path.unlink()


def _keys_in(folder: Path) -> list[PublicKey]:
    if not folder.is_dir():
        return []
    paths = sorted(folder.glob("*.pub"))
    for place in (folder, *paths):
        check_owner(place, place.stat(), _FOREIGN_WRITE, "go-w")
    return [PublicKey.load(path) for path in paths]
