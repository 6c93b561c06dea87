"""Keys in three folders, one for each party: secret/, public/ and evaluation/.

Each folder holds its keys and a key.json that says which program and parameters they are for, so
that a folder can be handed to its party and checked there without the others. Galois and
relinearization keys are stored seed-compressed, at half their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import tenseal.sealapi as seal

from hecompile.errors import InputError, IntegrityError
from hecompile.files import atomic_directory, atomic_write_bytes, cannot_write, sha256_bytes
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import Context
from hecompile.runtime.forked import forked_map
from hecompile.runtime.keycard import KeyCard, KeySource, Role, galois_file, open_folder
from hecompile.runtime.serial import (
    galois_keys_from_bytes,
    public_key_from_bytes,
    relin_keys_from_bytes,
    secret_key_from_bytes,
    to_bytes,
)
from hecompile.runtime.spec import UNBOUND

SECRET_FILE: Final = "secret.key"
PUBLIC_FILE: Final = "public.key"
RELIN_FILE: Final = "relin.key"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def no_progress(_task: str, _done: int, _total: int) -> None:
    """Report nothing."""


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
        return KeySource(self.cards[role], f"the new {role.value} key", files.__getitem__)

    def save(self, folder: str | Path, roles: Iterable[Role] = tuple(Role)) -> None:
        """Write the folders `secret/`, `public/` and `evaluation/`, or some, into a new folder.

        Raises:
            InputError: The folder exists or cannot be written.
        """
        with atomic_directory(folder) as place:
            self.write_into(place, roles)

    def write_into(self, place: Path, roles: Iterable[Role]) -> None:
        """Write some of the folders `secret/`, `public/` and `evaluation/` into a folder.

        Raises:
            InputError: The folder cannot be written.
        """
        for role in roles:
            for name, data in self.files[role].items():
                _write(place, role, name, data)
            _write(place, role, KeyCard.FILE, self.cards[role].to_json())


@dataclass(frozen=True)
class SecretKey:
    """What the custodian holds."""

    card: KeyCard
    context: Context
    key: Any = field(repr=False)


@dataclass(frozen=True)
class PublicKey:
    """What the client holds."""

    card: KeyCard
    context: Context
    key: Any = field(repr=False)


@dataclass(frozen=True)
class EvaluationKeys:
    """What the evaluator holds; `galois` has one key for each number of rotation steps."""

    card: KeyCard
    context: Context
    relin: Any = field(repr=False)
    galois: Mapping[int, Any] = field(repr=False)


def generate_keys(
    parameters: Parameters,
    galois_steps: Iterable[int],
    program: str,
    progress: Progress = no_progress,
    spill: Path | None = None,
    manifest: str = UNBOUND,
    workers: int = 1,
) -> KeyRing:
    """Generate all keys in memory.

    Args:
        parameters: Encryption parameters.
        galois_steps: Rotations to the left, in slots, that the program uses.
        program: Identity of the program the keys are for.
        progress: Called for each key made.
        spill: A folder in which `evaluation/` takes the evaluation keys, which are large, instead
            of memory; the ring then holds the secret and the public key only.
        manifest: Digest of the manifest of the program's bundle.
        workers: Processes that make Galois keys; more than one are forked from this one.

    Raises:
        InputError: A rotation is out of range, or `spill` cannot be written.
    """
    files: dict[Role, dict[str, bytes]] = {role: {} for role in Role}
    listed: dict[Role, dict[str, tuple[str, int]]] = {role: {} for role in Role}
    steps = tuple(sorted(set(galois_steps)))
    for role, name, data in _generate(parameters, steps, progress, workers):
        listed[role][name] = (sha256_bytes(data), len(data))
        if spill is not None and role is Role.EVALUATION:
            _write(spill, role, name, data)
        else:
            files[role][name] = data
    key_id = listed[Role.PUBLIC][PUBLIC_FILE][0]
    cards = {
        role: KeyCard.describe(role, key_id, program, manifest, parameters, steps, listed[role])
        for role in Role
    }
    if spill is not None:
        _write(spill, Role.EVALUATION, KeyCard.FILE, cards[Role.EVALUATION].to_json())
    return KeyRing(key_id, cards, files)


def write_keys(
    folder: str | Path,
    parameters: Parameters,
    galois_steps: Iterable[int],
    program: str,
    progress: Progress = no_progress,
    manifest: str = UNBOUND,
    workers: int = 1,
) -> str:
    """Generate keys straight into a new folder, holding one of them in memory at a time.

    The arguments are those of `generate_keys`. The folder appears whole or not at all.

    Returns:
        The key's identifier.

    Raises:
        InputError: The folder exists or cannot be written.
    """
    with atomic_directory(folder) as place:
        ring = generate_keys(parameters, galois_steps, program, progress, place, manifest, workers)
        ring.write_into(place, (Role.SECRET, Role.PUBLIC))
    return ring.key_id


def load_secret_key(
    folder: str | Path,
    parameters: Parameters,
    program: str,
    manifest: str = UNBOUND,
) -> SecretKey:
    """Load the custodian's key; arguments and errors are those of `load_evaluation_keys`."""
    return secret_key(open_folder(folder, Role.SECRET, parameters, program, manifest))


def load_public_key(
    folder: str | Path,
    parameters: Parameters,
    program: str,
    manifest: str = UNBOUND,
) -> PublicKey:
    """Load the client's key; arguments and errors are those of `load_evaluation_keys`."""
    return public_key(open_folder(folder, Role.PUBLIC, parameters, program, manifest))


def load_evaluation_keys(
    folder: str | Path,
    parameters: Parameters,
    program: str,
    galois_steps: Iterable[int] | None = None,
    progress: Progress = no_progress,
    manifest: str = UNBOUND,
) -> EvaluationKeys:
    """Load the evaluator's keys from their folder, or from the folder that holds all three.

    Args:
        folder: Where the keys are.
        parameters: The parameters they must be for.
        program: Identity of the program they must be for.
        galois_steps: The rotations needed; None loads what is there.
        progress: Called for each key read.
        manifest: Digest of the manifest of the bundle they must be for.

    Raises:
        InputError: A key is missing.
        IntegrityError: A key is another program's or bundle's, under other parameters, or was
            changed.
    """
    source = open_folder(folder, Role.EVALUATION, parameters, program, manifest)
    return evaluation_keys(source, galois_steps, progress)


def secret_key(source: KeySource) -> SecretKey:
    """Read the custodian's key."""
    context = Context(source.card.parameters)
    data = source.read(SECRET_FILE)
    key = secret_key_from_bytes(context, data, source.name(SECRET_FILE))
    return SecretKey(source.card, context, key)


def public_key(source: KeySource) -> PublicKey:
    """Read the client's key.

    Raises:
        IntegrityError: It is not the key that its identifier names.
    """
    data = source.read(PUBLIC_FILE)
    what = source.name(PUBLIC_FILE)
    if sha256_bytes(data) != source.card.key_id:
        raise IntegrityError(f"{what} is not the key that its {KeyCard.FILE} names.")
    context = Context(source.card.parameters)
    return PublicKey(source.card, context, public_key_from_bytes(context, data, what))


def evaluation_keys(
    source: KeySource,
    galois_steps: Iterable[int] | None = None,
    progress: Progress = no_progress,
) -> EvaluationKeys:
    """Read the evaluator's keys; the arguments are those of `load_evaluation_keys`."""
    card = source.card
    steps = sorted(set(card.galois_steps if galois_steps is None else galois_steps))
    if missing := set(steps) - set(card.galois_steps):
        raise InputError(
            f"{source.where} has no Galois key for rotations by {_some(sorted(missing))}; make new"
            " keys with hecompile keygen."
        )
    context = Context(card.parameters)
    relin = relin_keys_from_bytes(context, source.read(RELIN_FILE), source.name(RELIN_FILE))
    galois = {}
    for done, step in enumerate(steps, start=1):
        name = galois_file(step)
        galois[step] = galois_keys_from_bytes(context, source.read(name), step, source.name(name))
        progress("reading Galois keys", done, len(steps))
    return EvaluationKeys(card, context, relin, galois)


def _generate(
    parameters: Parameters, steps: tuple[int, ...], progress: Progress, workers: int
) -> Iterator[tuple[Role, str, bytes]]:
    """Yield each key as folder, file name and bytes, the secret key first."""
    for step in steps:
        if not 0 < step < parameters.slots:
            raise InputError(
                f"a rotation by {step} steps needs no key in {parameters.slots} slots; give steps"
                f" from 1 to {parameters.slots - 1}."
            )
    context = Context(parameters)
    generator = seal.KeyGenerator(context.seal)
    total = len(steps) + 3
    yield Role.SECRET, SECRET_FILE, to_bytes(generator.secret_key())
    progress("generating keys", 1, total)
    public = seal.PublicKey()
    generator.create_public_key(public)
    yield Role.PUBLIC, PUBLIC_FILE, to_bytes(public)
    progress("generating keys", 2, total)
    yield Role.EVALUATION, RELIN_FILE, to_bytes(generator.create_relin_keys())
    progress("generating keys", 3, total)

    def galois_key(step: int) -> bytes:
        return to_bytes(generator.create_galois_keys([context.galois_element(step)]))

    made = forked_map([partial(galois_key, step) for step in steps], workers)
    for done, (step, data) in enumerate(zip(steps, made, strict=True), start=4):
        yield Role.EVALUATION, galois_file(step), data
        progress("generating keys", done, total)


def _write(place: Path, role: Role, name: str, data: bytes) -> None:
    secret = role is Role.SECRET
    folder = place / role.value
    try:
        folder.mkdir(mode=0o700 if secret else 0o755, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    atomic_write_bytes(folder / name, data, 0o600 if secret else 0o644)


def _some(steps: list[int]) -> str:
    text = ", ".join(map(str, steps[:5]))
    return text if len(steps) <= 5 else f"{text} and {len(steps) - 5} more"
