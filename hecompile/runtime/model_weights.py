"""Encrypted weights: the model owner's part of a bundle, and the file of ciphertexts made of it.

The owner encrypts every `he.weight` of a program under the public key of the data, at the level
and scale that the program states, and hands the ciphertexts to the evaluator in one envelope. The
constants lie in a part of the bundle that the evaluator does not get.
"""

from __future__ import annotations

import io
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from hecompile.access.identity import Identity
from hecompile.access.manifest import OWNER_PART
from hecompile.errors import InputError, IntegrityError
from hecompile.files import cannot_read
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.ir.public import has_weights, weight_arrays
from hecompile.npz import npz_bytes
from hecompile.runtime.admission import check_program, facts
from hecompile.runtime.context import Context
from hecompile.runtime.envelope import (
    MODEL_LIFETIME,
    Admission,
    check_envelope,
    envelope_limit,
    seal_envelope,
)
from hecompile.runtime.header import Header, Kind, new_session
from hecompile.runtime.keycard import check_key
from hecompile.runtime.keys import Progress, PublicKey, no_progress
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.spec import UNBOUND, CipherSpec, program_id
from hecompile.runtime.wire import ciphertext_bytes

OWNER_FILE: Final = f"{OWNER_PART}/constants.npz"
_VALUES, _SALT = "values", "salt"
_SALT_BYTES: Final = 32
_MODEL_WHAT: Final = "the encrypted model"


def model_contract(program: Program) -> tuple[CipherSpec, ...]:
    """The ciphertexts of the weights, in the order in which they travel."""
    found = []
    for op in program.select(he.Weight):
        known = facts(op.defined)
        found.append(CipherSpec(op.defined.name, op.period, known.level, known.scale))
    return tuple(found)


def owner_bytes(program: Program) -> bytes:
    """The owner's part of a bundle: all weights in a row, and a salt.

    The manifest, which everybody sees, has the part's SHA-256 and size. The salt keeps guesses of
    few weights from being confirmed by the one, and the part is not compressed because of the
    other.

    Raises:
        ProgramError: The program has no constants for its weights.
    """
    arrays = list(weight_arrays(program).values())
    salt = np.frombuffer(secrets.token_bytes(_SALT_BYTES), dtype=np.uint8)
    return npz_bytes({_VALUES: np.concatenate(arrays), _SALT: salt}, compress=False)


def read_owner(data: bytes, program: Program) -> dict[str, Array]:
    """The weights in the owner's part, shape (period,), by the name of their value in the program.

    Raises:
        IntegrityError: The part is damaged or another program's.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            values = np.asarray(archive[_VALUES], dtype=np.float64)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(f"{OWNER_FILE} is damaged; compile the model again.") from error
    ops = program.select(he.Weight)
    if values.shape != (sum(op.period for op in ops),) or not np.isfinite(values).all():
        raise IntegrityError(
            f"{OWNER_FILE} does not hold the weights of program '{program.name}'; compile again."
        )
    ends = np.cumsum([op.period for op in ops])
    pieces = np.split(values, ends[:-1])
    return {op.defined.name: piece for op, piece in zip(ops, pieces, strict=True)}


class ModelOwner:
    """Encrypts the weights of one program under one public key."""

    def __init__(
        self,
        program: Program,
        weights: Mapping[str, Array],
        key: PublicKey,
        manifest: str = UNBOUND,
        identity: Identity | None = None,
        lifetime: int = MODEL_LIFETIME,
        purpose: str = "",
    ) -> None:
        """Prepare to encrypt.

        Args:
            program: Finished program, with encrypted weights.
            weights: Their constants, shape (period,), by value name.
            key: The public key of whoever owns the data.
            manifest: Digest of the manifest of the program's bundle.
            identity: Who signs the envelope; None leaves it unsigned, which only programs in no
                bundle take.
            lifetime: Seconds for which it holds.
            purpose: What it is sent for, where permissions name purposes.

        Raises:
            ProgramError: The program cannot run on its parameters.
            InputError: It has no encrypted weights.
            IntegrityError: The key is another program's or bundle's.
        """
        parameters = check_program(program)
        self.contract = model_contract(program)
        if not self.contract:
            raise InputError(
                f"the weights of program '{program.name}' are plain; compile it with"
                " --encrypt-model to have them encrypted."
            )
        named = program_id(program)
        check_key(key.card, named, manifest, parameters)
        self._identity = identity
        self._lifetime = lifetime
        self._weights = weights
        self._context = key.context
        self._encryptor: Any = seal.Encryptor(key.context.seal, key.key)
        self._header = Header(
            Kind.MODEL,
            named,
            key.card.key_id,
            new_session(),
            1,
            manifest=manifest,
            purpose=purpose,
        )

    def encrypt(self, progress: Progress = no_progress) -> bytes:
        """Encrypt all weights; the envelope is for the evaluator.

        Raises:
            InputError: A weight is too large for its level.
        """
        blobs = []
        for done, cipher in enumerate(self.contract, start=1):
            blobs.append(ciphertext_bytes(self._context, self._encrypted(cipher)))
            progress("encrypting weights", done, len(self.contract))
        return seal_envelope(self._header, self.contract, blobs, self._identity, self._lifetime)

    def _encrypted(self, cipher: CipherSpec) -> Any:
        values = self._weights[cipher.name]
        limit = self._context.parameters.modulus(cipher.level) / 2 / cipher.scale
        if (worst := float(np.abs(values).max())) >= limit:
            raise InputError(
                f"a weight of {worst:.4g} does not fit the encryption (below {limit:.4g}); compile"
                " the model again."
            )
        plain = self._context.encode(values, cipher.level, cipher.scale)
        encrypted = seal.Ciphertext()
        self._encryptor.encrypt(plain, encrypted)
        return encrypted


def check_model(
    data: bytes | None, program: Program, key_id: str, manifest: str, admission: Admission
) -> tuple[bytes, ...]:
    """Check the envelope of a program's weights, before a key or a library is loaded for it.

    It is not used up: every evaluation until it expires takes the same weights.

    Args:
        data: What `ModelOwner.encrypt` gave; None if there is nothing of the kind.
        program: A finished program.
        key_id: Identifier of the key they must be encrypted under.
        manifest: Digest of the manifest of the program's bundle.
        admission: Knows who may send it.

    Returns:
        The ciphertexts' bytes, in the order of `model_contract`.

    Raises:
        AccessDeniedError: Whoever signed may not encrypt the model.
        InputError: The program needs a model and there is none, or the other way round.
        IntegrityError: The model is for another program, bundle or key, or was changed.
    """
    if data is None:
        if has_weights(program):
            raise InputError(
                f"the weights of program '{program.name}' are encrypted; give the file that the"
                " model's owner made with hecompile encrypt-model (--model)."
            )
        return ()
    contract, parameters = _needed(program), check_program(program)
    expected = Header(Kind.MODEL, program_id(program), key_id, "", 1, manifest=manifest)
    envelope = check_envelope(
        data, expected, contract, parameters, _MODEL_WHAT, admission=admission
    )
    return envelope.ciphertexts


def open_model(
    data: bytes | None,
    program: Program,
    key_id: str,
    manifest: str,
    context: Context,
    progress: Progress = no_progress,
    *,
    admission: Admission,
) -> dict[str, Any]:
    """Check and read the ciphertexts of a program's weights, by value name.

    Args:
        data: As `check_model` takes it, like what follows.
        program: A checked program.
        key_id: Identifier of the key they must be encrypted under.
        manifest: Digest of the manifest of the program's bundle.
        context: The context of that key.
        progress: Called for each ciphertext read.
        admission: Knows who may send it.

    Returns:
        SEAL ciphertexts, none for a program with plain weights.

    Raises:
        HecompileError: As `check_model`.
    """
    blobs = check_model(data, program, key_id, manifest, admission)
    contract = model_contract(program) if blobs else ()
    found = {}
    for done, (cipher, blob) in enumerate(zip(contract, blobs, strict=True), start=1):
        found[cipher.name] = ciphertext_from_bytes(
            context, blob, cipher.level, cipher.scale, what=f"weight {cipher.name}"
        )
        progress("reading encrypted weights", done, len(contract))
    return found


def _needed(program: Program) -> tuple[CipherSpec, ...]:
    contract = model_contract(program)
    if not contract:
        raise InputError(
            f"the weights of program '{program.name}' are plain; leave the encrypted model out."
        )
    return contract


def read_model_file(path: Path, program: Program) -> bytes:
    """The bytes of an encrypted model, which may be no more than the program's weights take.

    Raises:
        InputError: The file cannot be read, or the program's weights are plain.
        IntegrityError: It is too large.
    """
    parameters = check_program(program)
    limit = envelope_limit(parameters, _needed(program))
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(data) > limit:
        raise IntegrityError(
            f"{path} is larger than the {limit} bytes that the encrypted weights of program"
            f" '{program.name}' take at most; name the file made by hecompile encrypt-model."
        )
    return data
