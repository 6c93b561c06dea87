"""SEAL objects to bytes and back, with every size checked before SEAL parses anything.

SEAL writes to paths only, so an anonymous file in memory (memfd) stands between. Its format:
a header of 16 bytes (magic 0xA15E, header size, version, compression, total size), then the
object's members, compressed by zstd (RFC 8878) or not at all.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any, Final

import tenseal.sealapi as seal

from hecompile.errors import IntegrityError
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import ciphertext_file_bytes
from hecompile.runtime.context import SCALE_TOLERANCE, Context
from hecompile.runtime.stream import HEADER as HEADER
from hecompile.runtime.stream import MAGIC as MAGIC
from hecompile.runtime.stream import to_bytes as to_bytes
from hecompile.runtime.wire import is_packed, unpack_ciphertext

_PLAIN, _ZLIB, _ZSTD = 0, 1, 2
_MEMBER_BYTES: Final = 1024
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK: Final = 128 << 10
_FRESH: Final = "get a fresh copy"


def ciphertext_limit(parameters: Parameters, level: int, polynomials: int = 2) -> int:
    """Most bytes that a serialised ciphertext may have."""
    compressed = _packed(parameters.ciphertext_bytes(level, polynomials) + _MEMBER_BYTES)
    return max(compressed, ciphertext_file_bytes(parameters, level, polynomials))


def ciphertext_from_bytes(
    context: Context, data: bytes, level: int, scale: float, polynomials: int = 2, *, what: str
) -> Any:
    """Read a ciphertext that must have a given level, scale and number of polynomials.

    Args:
        context: The context it must belong to.
        data: What `to_bytes` or `wire.ciphertext_bytes` gave.
        level: The level it must have.
        scale: The scale it must have; it is then set exactly.
        polynomials: How many polynomials it must have.
        what: Name of the ciphertext, for messages.

    Raises:
        IntegrityError: The bytes are no such ciphertext.
    """
    if is_packed(data):
        value = unpack_ciphertext(context, data, level, polynomials, what)
    else:
        content = context.parameters.ciphertext_bytes(level, polynomials) + _MEMBER_BYTES
        value = _load(context, seal.Ciphertext(), data, content, what)
    if value.parms_id() != context.parms_ids[level] or value.size() != polynomials:
        raise IntegrityError(
            f"{what} is not a ciphertext of {polynomials} polynomials at level {level}, which the"
            f" program expects; {_FRESH}."
        )
    if not value.is_ntt_form() or value.is_transparent():
        raise IntegrityError(f"{what} hides nothing or is not in CKKS form; {_FRESH}.")
    # The comparison is also False for NaN.
    if not abs(value.scale / scale - 1.0) < SCALE_TOLERANCE:
        raise IntegrityError(
            f"{what} has the scale {value.scale!r}, where the program expects {scale!r}; {_FRESH}."
        )
    value.scale = scale
    return value


def secret_key_from_bytes(context: Context, data: bytes, what: str) -> Any:
    """Read a secret key; `what` names it in messages.

    Raises:
        IntegrityError: The bytes are no secret key of this context.
    """
    least = _key_polynomial(context.parameters)
    return _key(context, seal.SecretKey(), data, least + _MEMBER_BYTES, what, least)


def public_key_from_bytes(context: Context, data: bytes, what: str) -> Any:
    """Read a public key; `what` names it in messages.

    Raises:
        IntegrityError: The bytes are no public key of this context.
    """
    least = 2 * _key_polynomial(context.parameters)
    return _key(context, seal.PublicKey(), data, least + _MEMBER_BYTES, what, least)


def relin_keys_from_bytes(context: Context, data: bytes, what: str) -> Any:
    """Read the relinearization key for products of two ciphertexts.

    Raises:
        IntegrityError: The bytes are no such key of this context.
    """
    keys = _key(context, seal.RelinKeys(), data, _switch_key(context.parameters), what)
    if keys.size() != 1 or not keys.has_key(2):
        raise IntegrityError(f"{what} does not relinearize a product; {_FRESH}.")
    return keys


def galois_keys_from_bytes(context: Context, data: bytes, steps: int, what: str) -> Any:
    """Read the Galois key of one rotation by `steps` slots to the left.

    Raises:
        IntegrityError: The bytes are no such key of this context.
    """
    keys = _key(context, seal.GaloisKeys(), data, _switch_key(context.parameters), what)
    if keys.size() != 1 or not keys.has_key(context.galois_element(steps)):
        raise IntegrityError(f"{what} is not the key of a rotation by {steps}; {_FRESH}.")
    return keys


def key_file_limit(parameters: Parameters) -> int:
    """Most bytes that any one serialised key may have."""
    return _packed(_switch_key(parameters))


def _key_polynomial(parameters: Parameters) -> int:
    return len(parameters.coeff_modulus_bits) * parameters.poly_modulus_degree * 8


def _switch_key(parameters: Parameters) -> int:
    # SEAL also writes one length, 8 bytes, for each possible Galois element up to the one held.
    lengths = 16 * parameters.poly_modulus_degree
    primes = len(parameters.coeff_modulus_bits)
    return parameters.galois_key_bytes + lengths + primes * _MEMBER_BYTES


def _packed(content: int) -> int:
    """Most bytes that `content` bytes take once compressed: incompressible data grow a little."""
    return HEADER.size + content + content // 64 + _MEMBER_BYTES


def _key(context: Context, empty: Any, data: bytes, content: int, what: str, least: int = 0) -> Any:
    value = _load(context, empty, data, content, what, least)
    if value.parms_id() != context.key_parms_id:
        raise IntegrityError(f"{what} was made under other encryption parameters; {_FRESH}.")
    return value


def _load(
    context: Context, empty: Any, data: bytes, content: int, what: str, least: int = 0
) -> Any:
    """Load `data` into the SEAL object `empty` once its sizes are known to be possible."""
    _check_framing(data, content, what, least)
    descriptor = os.memfd_create("hecompile", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(data)
        empty.load(context.seal, f"/proc/self/fd/{descriptor}")
        valid = seal.is_valid_for(empty, context.seal)
    except (RuntimeError, ValueError, IndexError, OverflowError, MemoryError) as error:
        raise IntegrityError(
            f"{what} is damaged or belongs to other encryption parameters: SEAL says '{error}';"
            f" {_FRESH}."
        ) from error
    finally:
        os.close(descriptor)
    if not valid:
        raise IntegrityError(f"{what} belongs to other encryption parameters; {_FRESH}.")
    return empty


def _check_framing(data: bytes, content: int, what: str, least: int) -> None:
    """Refuse what does not unpack to an object of between `least` and `content` bytes."""
    if len(data) > _packed(content):
        raise IntegrityError(
            f"{what} has {len(data)} bytes, more than the {_packed(content)} possible; {_FRESH}."
        )
    if len(data) < HEADER.size:
        raise IntegrityError(f"{what} is cut off after {len(data)} bytes; {_FRESH}.")
    magic, header_size, major, minor, mode, reserved, size = HEADER.unpack_from(data)
    if magic != MAGIC or header_size != HEADER.size or reserved:
        raise IntegrityError(f"{what} is not an object written by SEAL; {_FRESH}.")
    own = seal.Serialization.SEALHeader()
    if (major, minor) != (own.version_major, own.version_minor):
        raise IntegrityError(
            f"{what} was written by SEAL {major}.{minor}, but this is SEAL {own.version_major}."
            f"{own.version_minor}; use the same TenSEAL version everywhere."
        )
    if size != len(data):
        raise IntegrityError(
            f"{what} has {len(data)} bytes where its header says {size}; {_FRESH}."
        )
    unpacked = _UNPACKED.get(mode)
    if unpacked is None or not least <= unpacked(data[HEADER.size :], content) <= content:
        raise IntegrityError(f"{what} does not unpack to an object of its size; {_FRESH}.")


def _plain_size(body: bytes, limit: int) -> int:
    return len(body)


def _zlib_size(body: bytes, limit: int) -> int:
    """Size once unpacked, up to just above `limit`; -1 for what is not a whole zlib stream."""
    unpacker = zlib.decompressobj()
    try:
        size = len(unpacker.decompress(body, limit + 1))
    except zlib.error:
        return -1
    if size <= limit and (not unpacker.eof or unpacker.unused_data):
        return -1
    return size


def _zstd_size(body: bytes, limit: int) -> int:
    """Size that one zstd frame states, if its blocks cannot unpack to much more; else -1.

    SEAL unpacks into memory before it looks, so a small file could fill it. A block unpacks to at
    most 128 KiB (RFC 8878, section 3.1.1.2.4) and honest ones, which zstd splits where the
    statistics change, to 64 KiB on average: four times the limit leaves them room.
    """
    if len(body) < 6 or not body.startswith(_ZSTD_MAGIC):
        return -1
    descriptor = body[4]
    single, checksum, dictionary = descriptor >> 5 & 1, descriptor >> 2 & 1, descriptor & 3
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if not width or dictionary:
        return -1
    start = 5 if single else 6
    stated = int.from_bytes(body[start : start + width], "little") + (256 if width == 2 else 0)
    position, possible, last = start + width, 0, 0
    while not last:
        block = int.from_bytes(body[position : position + 3], "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        position += 3 + (1 if kind == 1 else size)
        possible += _ZSTD_BLOCK if kind == 2 else size
        if kind == 3 or position > len(body) or possible > 4 * limit + 16 * _ZSTD_BLOCK:
            return -1
    return stated if position + 4 * checksum == len(body) else -1


_UNPACKED: Final[dict[int, Callable[[bytes, int], int]]] = {
    _PLAIN: _plain_size,
    _ZLIB: _zlib_size,
    _ZSTD: _zstd_size,
}
