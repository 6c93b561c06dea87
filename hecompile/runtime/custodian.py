"""The custodian: holds the secret key, refreshes masked ciphertexts and decrypts outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from hecompile.errors import InputError, IntegrityError
from hecompile.ir.constants import Array
from hecompile.runtime.envelope import Header, Kind, open_envelope, read_header, seal_envelope
from hecompile.runtime.guard import Guard, OpenGuard
from hecompile.runtime.keycard import check_key
from hecompile.runtime.keys import SecretKey
from hecompile.runtime.packing import unpack
from hecompile.runtime.postprocess import Processed, post_process
from hecompile.runtime.ranges import OutsideWarning, no_warning
from hecompile.runtime.rounds import KeyHolder
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.spec import CipherSpec, ClientSpec, OutputSpec
from hecompile.runtime.wire import ciphertext_bytes


@dataclass(frozen=True)
class Decrypted:
    """Outputs of one envelope, by label, samples first.

    Attributes:
        raw: As the encrypted program gave them, shape (n * d0, d1, ...).
        outputs: After the client's post-processing.
    """

    raw: dict[str, Array]
    outputs: dict[str, Processed]


class OutputWarning(OutsideWarning):
    """A decrypted output outside the ranges seen in calibration, widened."""

    def __str__(self) -> str:
        """One sentence for people."""
        return (
            f"output '{self.label}' holds {self.worst:.4g} in sample {self.sample}, element"
            f" {self.element}, outside the range [{self.lower:.4g}, {self.upper:.4g}] seen in"
            f" calibration, as are {self.fraction:.2%} of its values; the stated error bound may"
            " not hold."
        )


WarnOutput = Callable[[OutputWarning], None]


def join_groups(parts: Sequence[Decrypted]) -> Decrypted:
    """The samples of several envelopes of one run, in order."""
    return Decrypted(_joined([p.raw for p in parts]), _joined([p.outputs for p in parts]))


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Custodian:
    """Uses one secret key for one program.

    A refresh never gives a plaintext away: its answer is encrypted under the same key. What it
    decrypts is masked by the evaluator, so that the custodian does not learn the model's
    intermediate values; `rounds` says exactly what it sees. Results are sent in full: SEAL takes
    longer to compress a ciphertext with a seed than to make it.

    Envelopes are not authenticated: their digests find damage, not malice. Whoever can alter what
    is sent here can have any ciphertext under this key refreshed, or decrypted as an output that
    the policy grants, if its level and scale are that output's: two outputs may be swapped, and a
    request may be sent again and is answered again. What is checked is that an envelope is for
    this program, bundle and key, that its round is one that the program has, and that its
    ciphertexts have the sizes and levels declared there. Requests must therefore come over a
    channel that only the evaluator writes to.

    Attributes:
        rounds: Number of refresh rounds answered so far.
    """

    def __init__(self, spec: ClientSpec, key: SecretKey, guard: Guard | None = None) -> None:
        """Prepare to refresh and decrypt; `guard` is asked before each.

        Raises:
            IntegrityError: The key is another program's or bundle's, or for other parameters.
        """
        check_key(key.card, spec.program, spec.manifest, spec.parameters)
        self.spec = spec
        self.key_id = key.card.key_id
        self.rounds = 0
        self._guard = guard if guard is not None else OpenGuard()
        self._context = key.context
        self._decryptor: Any = seal.Decryptor(key.context.seal, key.key)
        self._holder = KeyHolder(key.context, key.key)

    def refresh(self, request: bytes) -> bytes:
        """Decrypt masked ciphertexts and encrypt them anew at their full level.

        Args:
            request: Envelope of kind refresh-request.

        Returns:
            Envelope of kind refresh-response.

        Raises:
            AccessDeniedError: The policy does not grant it.
            IntegrityError: The request is for another program, bundle or key, or does not hold
                what a round of the program has.
        """
        self._guard.refresh()
        what = "the refresh request"
        stated = read_header(request, what)
        expected = self._expected(Kind.REFRESH_REQUEST, stated.round)
        round_ = self.spec.refresh(stated.round)
        envelope = open_envelope(request, expected, round_.request, self.spec.parameters, what)
        values = [
            self._load(*pair) for pair in zip(envelope.ciphertexts, round_.request, strict=True)
        ]
        results = self._holder.answer(round_, values)
        blobs = [ciphertext_bytes(self._context, value) for value in results]
        self.rounds += 1
        answer = replace(envelope.header, kind=Kind.REFRESH_RESPONSE)
        return seal_envelope(answer, round_.response, blobs)

    def decrypt(
        self,
        envelope: bytes,
        labels: Collection[str] | None = None,
        warn: WarnOutput = no_warning,
    ) -> Decrypted:
        """Decrypt the outputs of one evaluation and post-process them.

        Args:
            envelope: Envelope of kind output.
            labels: The outputs to decrypt, by name; None for all that the policy grants.
            warn: Told of values outside the calibrated ranges, once an output.

        Raises:
            AccessDeniedError: The policy does not grant it.
            InputError: The model has no such output.
            IntegrityError: The envelope is for another program, bundle or key, or was changed.
        """
        return self.decrypt_all([envelope], labels, warn)

    def decrypt_all(
        self,
        envelopes: Sequence[bytes],
        labels: Collection[str] | None = None,
        warn: WarnOutput = no_warning,
    ) -> Decrypted:
        """Decrypt and post-process the outputs of one run's evaluations, samples joined in order.

        Args:
            envelopes: Envelopes of kind output, one or more.
            labels: The outputs to decrypt, by name; None for all that the policy grants.
            warn: Told of values outside the calibrated ranges, once an output. Only outputs that
                are decrypted are looked at.

        Raises:
            AccessDeniedError: The policy does not grant it.
            InputError: The model has no such output.
            IntegrityError: The envelope is for another program, bundle or key, or was changed.
        """
        wanted = self._wanted(labels)
        found = join_groups([self._decrypt(envelope, wanted) for envelope in envelopes])
        for entry in wanted:
            _check_range(entry, found.raw[entry.label], warn)
        return found

    def _decrypt(self, envelope: bytes, wanted: Sequence[OutputSpec]) -> Decrypted:
        """Decrypt the outputs of one evaluation that were granted."""
        expected = self._expected(Kind.OUTPUT)
        contract = self.spec.output_ciphertexts
        opened = open_envelope(
            envelope, expected, contract, self.spec.parameters, "the encrypted output"
        )
        names = {cipher.name for entry in wanted for cipher in entry.ciphertexts}
        slots = {
            cipher.name: self._slots(data, cipher)
            for cipher, data in zip(contract, opened.ciphertexts, strict=True)
            if cipher.name in names
        }
        samples = opened.header.samples
        raw: dict[str, Array] = {}
        outputs: dict[str, Processed] = {}
        for entry in wanted:
            values = self._unpack(entry, slots, samples)
            raw[entry.label] = np.asarray(join_samples(values))
            outputs[entry.label] = join_samples(post_process(entry.post, values))
        return Decrypted(raw, outputs)

    def _wanted(self, labels: Collection[str] | None) -> list[OutputSpec]:
        """The outputs asked for, once the policy has granted them."""
        known = [entry.label for entry in self.spec.outputs]
        for label in labels or ():
            if label not in known:
                raise InputError(
                    f"the model has no output '{label}'; its outputs are {', '.join(known)}."
                )
        asked = [label for label in known if labels is None or label in labels]
        granted = self._guard.decrypt(asked, some=labels is None)
        return [entry for entry in self.spec.outputs if entry.label in granted]

    def _expected(self, kind: Kind, round_: int = 0) -> Header:
        spec = self.spec
        return Header(kind, spec.program, self.key_id, "", spec.batch, round_, spec.manifest)

    def _slots(self, data: bytes, cipher: CipherSpec) -> Array:
        """Decrypt to one period of slots: the mean of the repetitions, which share a value."""
        plain = seal.Plaintext()
        self._decryptor.decrypt(self._load(data, cipher), plain)
        repetitions = self._context.decode(plain).reshape(-1, cipher.period)
        return np.asarray(repetitions.mean(axis=0))

    def _load(self, data: bytes, cipher: CipherSpec) -> Any:
        return ciphertext_from_bytes(
            self._context, data, cipher.level, cipher.scale, what=f"ciphertext {cipher.name}"
        )

    def _unpack(self, entry: OutputSpec, slots: dict[str, Array], samples: int) -> Array:
        """Put an output's elements together, shape (samples, *dims)."""
        parts = []
        for cipher in entry.ciphertexts:
            if cipher.layout is None:
                raise IntegrityError(f"the layout of {cipher.name} is missing; compile again.")
            parts.append(unpack(slots[cipher.name], cipher.layout, self.spec.batch))
        return np.concatenate(parts, axis=-1)[:samples].reshape(samples, *entry.dims)


def _check_range(entry: OutputSpec, raw: Array, warn: WarnOutput) -> None:
    if entry.ranges is None:
        return
    found = entry.ranges.outside(raw.reshape(-1, math.prod(entry.dims)))
    if found is not None:
        warn(OutputWarning.of(entry.label, found))


def join_samples(values: Processed) -> Processed:
    """Let samples (n, d0, d1, ...) follow one another on the leading model axis: (n * d0, ...)."""
    if values.ndim < 2:
        return values
    samples, lead, *rest = values.shape
    return values.reshape(samples * lead, *rest)
