"""Keys in three folders, one for each party: secret/, public/ and evaluation/.

Each folder holds its keys and a key.json that says which program and parameters they are for, so
that a folder can be handed to its party and checked there without the others. The secret key is
encrypted (`hecompile.runtime.vault`), and beside it the releases under it are counted. Galois and
relinearization keys are stored seed-compressed, at half their size.

What deals with the secret key on the disk is imported only where that is asked for: programs of
clients and evaluators never load it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tenseal.sealapi as seal

from hecompile.errors import InputError, IntegrityError
from hecompile.files import atomic_directory, sha256_bytes
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import Context
from hecompile.runtime.forked import forked_map
from hecompile.runtime.key_folders import CardCheck, KeySource, open_folder
from hecompile.runtime.keycard import KeyCard, Role, galois_file
from hecompile.runtime.keyring import PUBLIC_FILE as PUBLIC_FILE
from hecompile.runtime.keyring import SECRET_FILE as SECRET_FILE
from hecompile.runtime.keyring import KeyRing as KeyRing
from hecompile.runtime.keyring import make_folder, write_key
from hecompile.runtime.serial import (
    galois_keys_from_bytes,
    public_key_from_bytes,
    relin_keys_from_bytes,
    secret_key_from_bytes,
    to_bytes,
)
from hecompile.runtime.spec import UNBOUND

if TYPE_CHECKING:
    from hecompile.access.identity import Identity
    from hecompile.runtime.vault import Vault

RELIN_FILE: Final = "relin.key"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def no_progress(_task: str, _done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class SecretKey:
    """What the custodian holds; `folder` is where it lies, None for one in memory only."""

    card: KeyCard
    context: Context
    key: Any = field(repr=False)
    folder: Path | None = None


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
            make_folder(spill / role.value, role)
            write_key(spill / role.value, role, name, data)
        else:
            files[role][name] = data
    key_id = listed[Role.PUBLIC][PUBLIC_FILE][0]
    cards = {
        role: KeyCard.describe(role, key_id, program, manifest, parameters, steps, listed[role])
        for role in Role
    }
    if spill is not None:
        card = cards[Role.EVALUATION]
        write_key(spill / card.role.value, card.role, KeyCard.FILE, card.to_json())
    return KeyRing(key_id, cards, files)


def write_keys(
    folder: str | Path,
    parameters: Parameters,
    galois_steps: Iterable[int],
    program: str,
    progress: Progress = no_progress,
    manifest: str = UNBOUND,
    workers: int = 1,
    vault: Vault | None = None,
    secret_folder: str | Path | None = None,
    identity: Identity | None = None,
) -> str:
    """Generate keys straight into a new folder, holding one of them in memory at a time.

    The arguments are those of `generate_keys`, and further ones. The folders appear whole or not
    at all.

    Args:
        folder: The folder to make.
        parameters: Encryption parameters.
        galois_steps: Rotations to the left, in slots, that the program uses.
        program: Identity of the program the keys are for.
        progress: Called for each key made.
        manifest: Digest of the manifest of the program's bundle.
        workers: Processes that make Galois keys.
        vault: What wraps the secret key; None for the machine's own.
        secret_folder: A folder to make for the secret key; None puts `secret/` into `folder`.
        identity: Who makes the keys and signs them; None leaves them unsigned, so that they are of
            no use with a bundle.

    Returns:
        The key's identifier.

    Raises:
        InputError: A folder exists or cannot be written.
        HecompileError: The secret key cannot be wrapped.
    """
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(atomic_directory(folder))
        secret = place / Role.SECRET.value
        if secret_folder is not None:
            secret = stack.enter_context(atomic_directory(secret_folder))
        ring = generate_keys(parameters, galois_steps, program, progress, place, manifest, workers)
        ring.write_secret(secret, vault)
        ring.write_public(place)
        for role in (Role.PUBLIC, Role.EVALUATION):
            ring.sign_folder(place, role, identity)
    return ring.key_id


def load_secret_key(
    folder: str | Path,
    parameters: Parameters,
    program: str,
    manifest: str = UNBOUND,
    vault: Vault | None = None,
) -> SecretKey:
    """Load the custodian's key; arguments and errors are those of `load_evaluation_keys`.

    Args:
        folder: Where the keys are.
        parameters: The parameters they must be for.
        program: Identity of the program they must be for.
        manifest: Digest of the manifest of the bundle they must be for.
        vault: What unwraps it; None for the machine's own.

    Raises:
        IntegrityError: Also where the vault's secret is wrong.
    """
    source = open_folder(folder, Role.SECRET, parameters, program, manifest)
    return secret_key(source, vault)


def load_public_key(
    folder: str | Path,
    parameters: Parameters,
    program: str,
    manifest: str = UNBOUND,
    cards: CardCheck | None = None,
) -> PublicKey:
    """Load the client's key; arguments and errors are those of `load_evaluation_keys`."""
    return public_key(open_folder(folder, Role.PUBLIC, parameters, program, manifest, cards))


def load_evaluation_keys(
    folder: str | Path,
    parameters: Parameters,
    program: str,
    galois_steps: Iterable[int] | None = None,
    progress: Progress = no_progress,
    manifest: str = UNBOUND,
    cards: CardCheck | None = None,
) -> EvaluationKeys:
    """Load the evaluator's keys from their folder, or from the folder that holds all three.

    Args:
        folder: Where the keys are.
        parameters: The parameters they must be for.
        program: Identity of the program they must be for.
        galois_steps: The rotations needed; None loads what is there.
        progress: Called for each key read.
        manifest: Digest of the manifest of the bundle they must be for.
        cards: Knows who may sign keys of the bundle; a program in no bundle needs none.

    Raises:
        InputError: A key is missing.
        IntegrityError: A key is another program's or bundle's, under other parameters, was
            changed, or nobody vouches for it.
        UsageError: Keys of a bundle are asked for without `cards`.
    """
    source = open_folder(folder, Role.EVALUATION, parameters, program, manifest, cards)
    return evaluation_keys(source, galois_steps, progress)


def secret_key(source: KeySource, vault: Vault | None = None) -> SecretKey:
    """Read the custodian's key; `vault` unwraps it, None for the machine's own.

    Raises:
        IntegrityError: It was changed, or the vault's secret is wrong.
    """
    context, data = Context(source.card.parameters), source.read(SECRET_FILE)
    if source.card.wrapped is not None:
        from hecompile.runtime.vault import unlock

        data = unlock(data, source.card.wrapped, source.card.bound, vault)
    key = secret_key_from_bytes(context, data, source.name(SECRET_FILE))
    return SecretKey(source.card, context, key, source.folder)


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


def _some(steps: list[int]) -> str:
    text = ", ".join(map(str, steps[:5]))
    return text if len(steps) <= 5 else f"{text} and {len(steps) - 5} more"
