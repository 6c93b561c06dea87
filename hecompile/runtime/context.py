"""A CKKS context of SEAL that is known to be the one the compiler planned for."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from hecompile.errors import CompileError, ProgramError
from hecompile.ir.constants import Array
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.security import check_security

SCALE_TOLERANCE: Final = 1e-6
"""Largest relative difference between a declared scale and the one SEAL computed."""


@dataclass(frozen=True)
class LibraryVersions:
    """Versions of TenSEAL and of the SEAL that it carries."""

    tenseal: str
    seal: str


def library_versions() -> LibraryVersions:
    """Ask the installed libraries for their versions; SEAL's is the one it writes into files."""
    header = seal.Serialization.SEALHeader()
    return LibraryVersions(
        tenseal=importlib.metadata.version("tenseal"),
        seal=f"{header.version_major}.{header.version_minor}",
    )


class Context:
    """SEAL's context for given parameters, with levels instead of SEAL's parameter identifiers.

    Attributes:
        parameters: The compiler's parameters.
        seal: The SEAL context.
        parms_ids: SEAL's identifier of each level's modulus, level 0 first.
        key_parms_id: SEAL's identifier of the keys' modulus (all primes).
        residues: What `residues.residue_access` found; None before it was asked.
    """

    def __init__(self, parameters: Parameters) -> None:
        """Build the context and check it against the parameters and the security table.

        Raises:
            CompileError: SEAL refuses the parameters, picks other primes than the compiler
                counted on, or the parameters do not offer 128 bits of security.
        """
        check_security(parameters.poly_modulus_degree, parameters.modulus_bits)
        degree = parameters.poly_modulus_degree
        chosen = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        chosen.set_poly_modulus_degree(degree)
        try:
            primes = seal.CoeffModulus.Create(degree, list(parameters.coeff_modulus_bits))
        except (ValueError, RuntimeError) as error:
            raise CompileError(
                f"SEAL has no primes of {parameters.coeff_modulus_bits} bits for ring degree"
                f" {degree} ({error}); compile again with other parameters."
            ) from error
        found = tuple(int(prime.value()) for prime in primes)
        if found != parameters.primes:
            raise CompileError(
                f"this SEAL ({library_versions().seal}) picks other primes for ring degree"
                f" {degree} than the compiler, so scales would be wrong; install the TenSEAL"
                " version that the bundle was compiled for."
            )
        chosen.set_coeff_modulus(primes)
        self.parameters = parameters
        self.seal: Any = seal.SEALContext(chosen, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.seal.parameters_set():
            raise CompileError(
                f"SEAL refuses the encryption parameters: {self.seal.parameters_error_message()};"
                " compile again with other parameters."
            )
        self.parms_ids = self._walk()
        self.key_parms_id: list[int] = self.seal.key_parms_id()
        self.residues: Any = None
        self._encoder: Any = seal.CKKSEncoder(self.seal)
        self._levels = {tuple(identity): level for level, identity in enumerate(self.parms_ids)}

    def _walk(self) -> tuple[list[int], ...]:
        """SEAL's identifiers of the data levels, level 0 first."""
        found = []
        data = self.seal.first_context_data()
        while data is not None:
            found.append(data.parms_id())
            data = data.next_context_data()
        return tuple(reversed(found))

    @property
    def slots(self) -> int:
        """Number of slots of a ciphertext."""
        return self.parameters.slots

    def level_of(self, value: Any) -> int:
        """Level of a SEAL ciphertext or plaintext.

        Raises:
            ProgramError: The value belongs to no level of this context.
        """
        level = self._levels.get(tuple(value.parms_id()))
        if level is None:
            raise ProgramError("a value was made under other encryption parameters.")
        return level

    def encode(self, values: Array | float, level: int, scale: float) -> Any:
        """Encode a slot vector, repeated with its own length, or one number for all slots.

        Args:
            values: Shape (period,), where the period divides the number of slots, or a number.
            level: Level of the plaintext.
            scale: Its exact scale.

        Raises:
            ProgramError: The period does not divide the slots, or a value times the scale does
                not fit the modulus of the level.
        """
        vector = np.asarray(values, dtype=np.float64)
        if not np.isfinite(vector).all():
            raise ProgramError("NaN or an infinity cannot be encoded.")
        plain = seal.Plaintext()
        try:
            if vector.size == 1 or (vector.size and np.all(vector == vector.flat[0])):
                self._encoder.encode(float(vector.flat[0]), self.parms_ids[level], scale, plain)
            else:
                tiled = self.tile(vector)
                self._encoder.encode(tiled.tolist(), self.parms_ids[level], scale, plain)
        except (ValueError, RuntimeError) as error:
            raise ProgramError(
                f"values up to {float(np.abs(vector).max(initial=0.0)):.3g} at scale"
                f" 2**{np.log2(scale):.1f} do not fit level {level}: SEAL says '{error}'."
            ) from error
        return plain

    def tile(self, vector: Array) -> Array:
        """Repeat a vector of shape (period,) over all slots.

        Raises:
            ProgramError: The period does not divide the number of slots.
        """
        if vector.ndim != 1 or not vector.size or self.slots % vector.size:
            raise ProgramError(
                f"a slot vector of shape {vector.shape} does not repeat over {self.slots} slots."
            )
        return np.tile(vector, self.slots // vector.size)

    def decode(self, plain: Any) -> Array:
        """Decode a plaintext to its slots, shape (slots,)."""
        return np.asarray(self._encoder.decode_double(plain), dtype=np.float64)

    def galois_element(self, steps: int) -> int:
        """Galois element of a rotation to the left by `steps` slots."""
        return pow(3, steps, 2 * self.parameters.poly_modulus_degree)


def settle_scale(value: Any, declared: float, what: str) -> None:
    """Set a ciphertext's scale to the declared one, after checking that it is nearly so already.

    Args:
        value: A SEAL ciphertext.
        declared: The exact scale that the program states.
        what: The value's name, for the message.

    Raises:
        ProgramError: They differ by more than `SCALE_TOLERANCE`, relatively.
    """
    if abs(value.scale / declared - 1.0) >= SCALE_TOLERANCE:
        raise ProgramError(
            f"{what} came out at scale {value.scale!r}, where the program declares {declared!r};"
            " compile the program again."
        )
    value.scale = declared
