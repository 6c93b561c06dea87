"""The secret key at rest: encrypted under a data key, which somebody's own secret wraps.

AES-256-GCM (NIST SP 800-38D) encrypts the secret key under a random data key, and that one goes
with the folder in a wrapped form: under a passphrase (scrypt, RFC 7914), under a key management
system that a command reaches, or under a random key of this machine's. What is authenticated with
both is whose key it is and for what, so that a card of another key fits neither.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hecompile.errors import InputError, IntegrityError
from hecompile.files import atomic_write_bytes, cannot_read, config_home, private_folder
from hecompile.runtime.wrapped import MOST_WRAPPED, Method, Wrapped

MACHINE_FILE: Final = "vault.key"
OVERHEAD: Final = 12 + 16
"""Bytes that encryption adds: the nonce and the tag."""

MAX_PASSPHRASE: Final = 4096
SCRYPT_COST: Final = (1 << 17, 8, 1)
"""128 MiB and about half a second."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SALT_BYTES: Final = 16
_KMS_SECONDS: Final = 60.0
_FOREIGN: Final = stat.S_IRWXG | stat.S_IRWXO


class Vault(Protocol):
    """Wraps data keys, and unwraps those of one method."""

    def wrap(self, key: bytes, bound: bytes) -> Wrapped:
        """Wrap a data key; `bound` is authenticated with it.

        Raises:
            HecompileError: It cannot be wrapped.
        """

    def unwrap(self, wrapped: Wrapped, bound: bytes) -> bytes:
        """The data key again.

        Raises:
            IntegrityError: It was wrapped with another secret, for another key, or was changed.
            HecompileError: It is of another method, or cannot be unwrapped.
        """


class PassphraseVault:
    """Wraps under a key that scrypt derives from a passphrase."""

    def __init__(self, ask: Callable[[], bytes], cost: tuple[int, int, int] = SCRYPT_COST) -> None:
        """Take the passphrase when it is needed; `cost` is scrypt's n, r and p for new keys."""
        self._ask = ask
        self._cost = cost

    def wrap(self, key: bytes, bound: bytes) -> Wrapped:
        """Wrap a data key under a fresh salt."""
        salt = secrets.token_bytes(_SALT_BYTES)
        sealed = _encrypt(_derive(self._ask(), salt, self._cost), key, bound)
        return Wrapped(Method.PASSPHRASE, sealed, salt, self._cost)

    def unwrap(self, wrapped: Wrapped, bound: bytes) -> bytes:
        """The data key again."""
        _must_be(wrapped, Method.PASSPHRASE)
        derived = _derive(self._ask(), wrapped.salt, wrapped.cost)
        return _unwrapped(derived, wrapped.key, bound, "the passphrase is wrong")


class KmsVault:
    """Has a key management system wrap, through a command.

    The command is called with the word `wrap` or `unwrap` added, gets the key on standard input
    and gives the result on standard output. It is split as a shell splits words, but no shell runs
    it, and it never comes from a file that travels.
    """

    def __init__(self, command: str) -> None:
        """Take the command.

        Raises:
            InputError: It is empty, or its quotes do not match.
        """
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise InputError(f"the KMS command cannot be read: {error}") from error
        if not self._words:
            raise InputError("the KMS command is empty; name a program that wraps and unwraps")

    def wrap(self, key: bytes, bound: bytes) -> Wrapped:
        """Wrap a data key; a key of our own binds it, whatever the system does."""
        inner = secrets.token_bytes(_KEY_BYTES)
        return Wrapped(Method.KMS, _encrypt(inner, key, bound) + self._call("wrap", inner))

    def unwrap(self, wrapped: Wrapped, bound: bytes) -> bytes:
        """The data key again."""
        _must_be(wrapped, Method.KMS)
        size = _KEY_BYTES + OVERHEAD
        inner = self._call("unwrap", wrapped.key[size:])
        if len(inner) != _KEY_BYTES:
            raise IntegrityError("the KMS command gave no key of 32 bytes; it is another system's")
        return _unwrapped(inner, wrapped.key[:size], bound, "the KMS gave another key")

    def _call(self, word: str, data: bytes) -> bytes:
        try:
            done = subprocess.run(
                [*self._words, word],
                input=data,
                capture_output=True,
                timeout=_KMS_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"the KMS command '{self._words[0]}' failed: {error}") from error
        if done.returncode or not 0 < len(done.stdout) <= MOST_WRAPPED - 1024:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            told = f": {said[0][:200]}" if said else ""
            raise InputError(
                f"the KMS command '{self._words[0]} ... {word}' failed with exit code"
                f" {done.returncode}{told}"
            )
        return done.stdout


class MachineVault:
    """Wraps under a random key in the settings folder.

    It protects copies of a key folder, such as back-ups, and not the machine: whoever can read the
    settings folder too can use the key.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Use the key at `path`, by default the user's own; it is made at the first use."""
        self.path = path if path is not None else config_home() / MACHINE_FILE

    def wrap(self, key: bytes, bound: bytes) -> Wrapped:
        """Wrap a data key."""
        return Wrapped(Method.MACHINE, _encrypt(self._load_or_make(), key, bound))

    def unwrap(self, wrapped: Wrapped, bound: bytes) -> bytes:
        """The data key again."""
        _must_be(wrapped, Method.MACHINE)
        if not self.path.exists():
            raise InputError(
                f"the secret key was encrypted on another machine: {self.path} is missing; use it"
                " there, or make keys with --passphrase-file to move them"
            )
        return _unwrapped(
            self._load(), wrapped.key, bound, f"it was encrypted under another {self.path.name}"
        )

    def _load_or_make(self) -> bytes:
        if not os.path.lexists(self.path):
            private_folder(self.path.parent)
            try:
                key = secrets.token_bytes(_KEY_BYTES)
                atomic_write_bytes(self.path, key, 0o600, exclusive=True)
            except FileExistsError:
                return self._load()
        return self._load()

    def _load(self) -> bytes:
        key = _read_private(self.path, _KEY_BYTES + 1)
        if len(key) != _KEY_BYTES:
            raise IntegrityError(f"{self.path} is damaged; restore the copy that was kept of it")
        return key


def passphrase_file(path: Path) -> Callable[[], bytes]:
    """Reads a passphrase from the first line of a file that only this user can read.

    The result raises InputError or IntegrityError where the file will not do.
    """

    def read() -> bytes:
        line = _read_private(path, MAX_PASSPHRASE + 1).split(b"\n", 1)[0].rstrip(b"\r")
        if not 0 < len(line) <= MAX_PASSPHRASE:
            raise InputError(f"{path} holds no passphrase on its first line; write one there")
        return line

    return read


def lock(data: bytes, bound: bytes, vault: Vault) -> tuple[bytes, Wrapped]:
    """Encrypt a secret key under a fresh data key.

    Args:
        data: The key.
        bound: Whose key it is and for what; needed to open it again.
        vault: What wraps the data key.

    Returns:
        The encrypted key, and its data key in wrapped form.

    Raises:
        HecompileError: The data key cannot be wrapped.
    """
    key = secrets.token_bytes(_KEY_BYTES)
    return _encrypt(key, data, bound), vault.wrap(key, bound)


def unlock(data: bytes, wrapped: Wrapped, bound: bytes, vault: Vault | None = None) -> bytes:
    """Decrypt a secret key.

    Args:
        data: What `lock` gave.
        wrapped: Likewise.
        bound: As given to `lock`.
        vault: What unwraps the data key; None for the machine's own.

    Raises:
        IntegrityError: The secret is wrong, or something was changed or exchanged.
        HecompileError: The vault is another method's or cannot be used.
    """
    key = (vault or MachineVault()).unwrap(wrapped, bound)
    return _unwrapped(key, data, bound, "its file was changed")


def _must_be(wrapped: Wrapped, method: Method) -> None:
    if wrapped.method is method:
        return
    remedies: Mapping[Method, str] = {
        Method.PASSPHRASE: "a passphrase; give it with --passphrase-file",
        Method.KMS: "a key management system; name its command with --kms",
        Method.MACHINE: "this machine's own key; leave out --passphrase-file and --kms",
    }
    raise InputError(f"the secret key is protected by {remedies[wrapped.method]}")


def _derive(passphrase: bytes, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    return Scrypt(salt=salt, length=_KEY_BYTES, n=n, r=r, p=p).derive(passphrase)


def _encrypt(key: bytes, data: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, bound)


def _unwrapped(key: bytes, data: bytes, bound: bytes, likely: str) -> bytes:
    try:
        if len(data) < OVERHEAD:
            raise InvalidTag
        return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound)
    except InvalidTag:
        raise IntegrityError(
            f"the secret key cannot be decrypted: {likely}, or key.json was changed or belongs to"
            " another key"
        ) from None


def _read_private(path: Path, limit: int) -> bytes:
    """Contents of a file that other users can neither read nor change."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise cannot_read(path, error) from error
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(stream.fileno())
        foreign = found.st_uid != os.geteuid() or found.st_mode & _FOREIGN
        # A pipe that the shell made for this process is nobody else's.
        if stat.S_ISREG(found.st_mode) and foreign:
            raise IntegrityError(f"other users may read or change {path}; run chmod 600 on it")
        return stream.read(limit)
