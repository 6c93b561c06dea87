"""The custodian: holds the secret key, refreshes masked ciphertexts and decrypts outputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from hecompile.errors import IntegrityError
from hecompile.ir.constants import Array
from hecompile.runtime.client import check_key
from hecompile.runtime.envelope import Header, Kind, open_envelope, read_header, seal_envelope
from hecompile.runtime.keys import SecretKey
from hecompile.runtime.packing import unpack
from hecompile.runtime.postprocess import apply_post
from hecompile.runtime.serial import ciphertext_from_bytes, to_bytes
from hecompile.runtime.spec import CipherSpec, ClientSpec, OutputSpec


@dataclass(frozen=True)
class Decrypted:
    """Outputs of one envelope, by label, samples first.

    Attributes:
        raw: As the encrypted program gave them, shape (n * d0, d1, ...).
        outputs: After the client's post-processing.
    """

    raw: dict[str, Array]
    outputs: dict[str, Array]


class Custodian:
    """Uses one secret key for one program.

    A refresh never gives a plaintext away: its answer is encrypted under the same key. What it
    decrypts is masked by the evaluator, so that the custodian does not learn the model's
    intermediate values.

    Attributes:
        rounds: Number of refresh rounds answered so far.
    """

    def __init__(self, spec: ClientSpec, key: SecretKey) -> None:
        """Prepare to refresh and decrypt.

        Raises:
            IntegrityError: The key is another program's or for other parameters.
        """
        check_key(spec, key.card.program, key.card.parameters == spec.parameters)
        self.spec = spec
        self.key_id = key.card.key_id
        self.rounds = 0
        self._answered: Counter[tuple[str, int]] = Counter()
        self._context = key.context
        self._decryptor: Any = seal.Decryptor(key.context.seal, key.key)
        self._encryptor: Any = seal.Encryptor(key.context.seal, key.key)

    def refresh(self, request: bytes) -> bytes:
        """Decrypt masked ciphertexts and encrypt them anew at their full level.

        Args:
            request: Envelope of kind refresh-request.

        Returns:
            Envelope of kind refresh-response.

        Raises:
            IntegrityError: The request is for another program or key, does not hold what the
                program's round has, or was answered before.
        """
        what = "the refresh request"
        stated = read_header(request, what)
        expected = Header(
            Kind.REFRESH_REQUEST, self.spec.program, self.key_id, "", self.spec.batch, stated.round
        )
        round_ = self.spec.refresh(stated.round)
        envelope = open_envelope(request, expected, round_.request, self.spec.parameters, what)
        header = envelope.header
        if self._answered[header.session, header.round]:
            raise IntegrityError(
                f"refresh round {header.round} of this evaluation was answered before; start the"
                " evaluation anew."
            )
        blobs = [
            self._refresh(data, before, after)
            for data, before, after in zip(
                envelope.ciphertexts, round_.request, round_.response, strict=True
            )
        ]
        self._answered[header.session, header.round] += 1
        self.rounds += 1
        answer = Header(
            Kind.REFRESH_RESPONSE,
            header.program,
            self.key_id,
            header.session,
            header.samples,
            header.round,
        )
        return seal_envelope(answer, round_.response, blobs)

    def decrypt(self, envelope: bytes) -> Decrypted:
        """Decrypt the outputs of one evaluation and post-process them.

        Raises:
            IntegrityError: The envelope is for another program or key, or was changed.
        """
        expected = Header(Kind.OUTPUT, self.spec.program, self.key_id, "", self.spec.batch)
        contract = self.spec.output_ciphertexts
        opened = open_envelope(
            envelope, expected, contract, self.spec.parameters, "the encrypted output"
        )
        slots = {
            cipher.name: self._slots(data, cipher)
            for cipher, data in zip(contract, opened.ciphertexts, strict=True)
        }
        samples = opened.header.samples
        raw = {entry.label: self._join(entry, slots, samples) for entry in self.spec.outputs}
        outputs = {entry.label: postprocess(entry, raw[entry.label]) for entry in self.spec.outputs}
        return Decrypted(raw, outputs)

    def _slots(self, data: bytes, cipher: CipherSpec) -> Array:
        """Decrypt to one period of slots: the mean of the repetitions, which share a value."""
        encrypted = ciphertext_from_bytes(
            self._context, data, cipher.level, cipher.scale, what=f"ciphertext {cipher.name}"
        )
        plain = seal.Plaintext()
        self._decryptor.decrypt(encrypted, plain)
        repetitions = self._context.decode(plain).reshape(-1, cipher.period)
        return np.asarray(repetitions.mean(axis=0))

    def _refresh(self, data: bytes, before: CipherSpec, after: CipherSpec) -> bytes:
        plain = self._context.encode(self._slots(data, before), after.level, after.scale)
        return to_bytes(self._encryptor.encrypt_symmetric(plain))

    def _join(self, entry: OutputSpec, slots: dict[str, Array], samples: int) -> Array:
        """Put an output's elements together, shape (samples * d0, d1, ...)."""
        parts = []
        for cipher in entry.ciphertexts:
            if cipher.layout is None:
                raise IntegrityError(f"the layout of {cipher.name} is missing; compile again.")
            parts.append(unpack(slots[cipher.name], cipher.layout, self.spec.batch))
        rows = np.concatenate(parts, axis=-1)[:samples]
        lead, *rest = entry.dims or (1,)
        return rows.reshape(samples * lead, *rest)


def postprocess(entry: OutputSpec, raw: Array) -> Array:
    """Apply an output's post-processing to raw outputs of shape (n * d0, d1, ...), each sample."""
    if not entry.post:
        return raw
    samples = raw.reshape(-1, *entry.dims)
    done = [np.asarray(apply_post(entry.post, sample)) for sample in samples]
    # A step that removes the leading model axis leaves one result a sample.
    joined = done[0].ndim == len(entry.dims)
    return np.concatenate(done) if joined else np.stack(done)
