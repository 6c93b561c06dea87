"""The client: checks, preprocesses, packs, encrypts and signs samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import ArrayLike, NDArray

from hecompile.access.identity import Identity
from hecompile.errors import InputError, IntegrityError
from hecompile.ir.constants import Array
from hecompile.preprocess import apply_steps
from hecompile.runtime.envelope import input_fields, seal_envelope
from hecompile.runtime.guard import Guard, OpenGuard
from hecompile.runtime.header import Header, Kind, new_session
from hecompile.runtime.inspection import lifetime_of, purpose_of
from hecompile.runtime.keycard import check_key
from hecompile.runtime.keys import PublicKey
from hecompile.runtime.packing import place
from hecompile.runtime.ranges import OutsideWarning, no_warning
from hecompile.runtime.spec import CipherSpec, ClientSpec, InputSpec
from hecompile.runtime.wire import ciphertext_bytes


class RangeWarning(OutsideWarning):
    """Values of an input outside the ranges seen in calibration."""

    def __str__(self) -> str:
        """One sentence for people."""
        return (
            f"input '{self.label}': {self.fraction:.2%} of the values are outside the ranges seen"
            f" in calibration, the worst is {self.worst:.4g}, element {self.element} of sample"
            f" {self.sample}, with the range [{self.lower:.4g}, {self.upper:.4g}]"
            f"{'' if self.by_element else ' of the whole input'}; the result may be wrong, and the"
            " stated error bound may not hold."
        )


Warn = Callable[[RangeWarning], None]


class Client:
    """Encrypts samples for one program under one public key."""

    def __init__(
        self,
        spec: ClientSpec,
        key: PublicKey,
        guard: Guard | None = None,
        identity: Identity | None = None,
        lifetime: int | None = None,
        purpose: str | None = None,
    ) -> None:
        """Prepare to encrypt.

        Args:
            spec: What is known of the program.
            key: Public key to encrypt under.
            guard: Asked before samples are looked at. It advises: who may submit what is
                encrypted is decided where the envelope arrives.
            identity: Who signs the envelopes; None leaves them unsigned, which only programs in
                no bundle take.
            lifetime: Seconds for which they hold; None for what the guard's policy says.
            purpose: What they are sent for, by which receivers decide; None for the guard's.

        Raises:
            IntegrityError: The key is another program's or bundle's, or for other parameters.
        """
        check_key(key.card, spec.program, spec.manifest, spec.parameters)
        self.spec = spec
        self.key_id = key.card.key_id
        self._guard = guard if guard is not None else OpenGuard()
        self._identity = identity
        self._lifetime = lifetime if lifetime is not None else lifetime_of(guard)
        self._purpose = purpose if purpose is not None else purpose_of(guard)
        self._context = key.context
        self._encryptor: Any = seal.Encryptor(key.context.seal, key.key)

    def encrypt(self, inputs: Mapping[str, ArrayLike], warn: Warn = no_warning) -> list[bytes]:
        """Encrypt samples, `spec.batch` of them to an envelope.

        Args:
            inputs: One array for each input, samples first: where a sample's shape is
                (d0, d1, ...), an array (n * d0, d1, ...) holds n samples.
            warn: Told of values outside the calibrated ranges, once an input.

        Returns:
            One envelope for each group of samples, in their order.

        Raises:
            AccessDeniedError: The policy does not grant it.
            InputError: An array is missing, unknown, of a wrong shape or type, or not finite.
        """
        self._guard.encrypt([entry.label for entry in self.spec.inputs])
        samples = prepare(self.spec, inputs, warn)
        count = len(next(iter(samples.values())))
        batch = self.spec.batch
        return [
            self._envelope({label: rows[i : i + batch] for label, rows in samples.items()})
            for i in range(0, count, batch)
        ]

    def _envelope(self, group: Mapping[str, Array]) -> bytes:
        samples = len(next(iter(group.values())))
        # Unused places repeat the last sample: its values are inside the fitted ranges.
        order = np.minimum(np.arange(self.spec.batch), samples - 1)
        blobs = [
            ciphertext_bytes(self._context, self._encrypt(group[entry.label][order], entry, cipher))
            for entry in self.spec.inputs
            for cipher in entry.ciphertexts
        ]
        header = Header(
            Kind.INPUT,
            self.spec.program,
            self.key_id,
            new_session(),
            samples,
            manifest=self.spec.manifest,
            purpose=self._purpose,
        )
        return seal_envelope(
            header,
            self.spec.input_ciphertexts,
            blobs,
            self._identity,
            self._lifetime,
            fields=input_fields(self.spec),
        )

    def _encrypt(self, rows: Array, entry: InputSpec, cipher: CipherSpec) -> Any:
        limit = self.spec.parameters.modulus(cipher.level) / 2 / cipher.scale
        if (worst := float(np.abs(rows).max())) >= limit:
            raise InputError(
                f"input '{entry.label}' holds {worst:.4g}, which does not fit the encryption"
                f" (below {limit:.4g}); check the unit of the samples."
            )
        where = cipher.layout if cipher.gather is None else cipher.gather
        if where is None:
            raise IntegrityError(f"the layout of {cipher.name} is missing; compile again.")
        slots = place(rows, where, cipher.stride, cipher.period)
        plain = self._context.encode(slots, cipher.level, cipher.scale)
        encrypted = seal.Ciphertext()
        self._encryptor.encrypt(plain, encrypted)
        return encrypted


def prepare(
    spec: ClientSpec, inputs: Mapping[str, ArrayLike], warn: Warn = no_warning
) -> dict[str, Array]:
    """Check and preprocess the arrays of all inputs.

    Returns:
        By input, one flattened sample a row: shape (samples, elements).

    Raises:
        InputError: An array is missing, unknown, of a wrong shape or type, or not finite.
    """
    known = [entry.label for entry in spec.inputs]
    for label in inputs:
        if label not in known:
            raise InputError(
                f"the model has no input '{label}'; name the arrays {', '.join(known)}."
            )
    samples = {}
    for entry in spec.inputs:
        if entry.label not in inputs:
            given = ", ".join(inputs) or "none"
            raise InputError(f"the input '{entry.label}' is missing; the arrays given are {given}.")
        samples[entry.label] = prepare_input(entry, np.asarray(inputs[entry.label]), warn)
    counts = {label: len(rows) for label, rows in samples.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"'{label}' has {count}" for label, count in counts.items())
        raise InputError(f"the inputs differ in their number of samples: {told}.")
    return samples


def prepare_input(entry: InputSpec, array: NDArray[Any], warn: Warn = no_warning) -> Array:
    """Check and preprocess the array of one input.

    Returns:
        One flattened sample a row: shape (samples, elements).

    Raises:
        InputError: The array is of a wrong shape or type, or not finite.
    """
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"input '{entry.label}' holds elements of type {array.dtype}, where real numbers are"
            " needed."
        )
    if entry.preprocessing:
        try:
            array = apply_steps(entry.preprocessing, array)
        except InputError as error:
            raise InputError(f"input '{entry.label}', preprocessing: {error}") from error
    dims = entry.dims
    lead = dims[0] if dims else 1
    if (
        array.ndim != len(dims)
        or array.shape[1:] != dims[1:]
        or not len(array)
        or len(array) % lead
    ):
        wanted = ", ".join(map(str, ("n" if lead == 1 else f"n*{lead}", *dims[1:])))
        raise InputError(
            f"input '{entry.label}' has the shape {array.shape}, where ({wanted}) is needed for n"
            " samples, n at least 1."
        )
    rows = array.astype(np.float64).reshape(len(array) // lead, -1)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        sample, element = (int(i) for i in bad[0])
        raise InputError(
            f"input '{entry.label}' holds {rows[sample, element]} in sample {sample}; fill or"
            " leave out what is not finite."
        )
    _check_range(entry, rows, warn)
    return rows


def _check_range(entry: InputSpec, rows: Array, warn: Warn) -> None:
    found = entry.ranges.outside(rows) if entry.ranges is not None else None
    if found is not None:
        warn(RangeWarning.of(entry.label, found))
