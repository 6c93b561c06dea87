import json
import math
from typing import Any

import pytest
import tenseal.sealapi as sealapi

from hecompile.errors import CompileError, InputError
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.primes import is_prime, ntt_primes
from hecompile.numeric.security import MAX_MODULUS_BITS, check_security, max_modulus_bits
from hecompile.numeric.virtual import VirtualLevels

SIZES = [
    (28, 28, 28, 30, 28, 40),
    (40, 30, 30, 30, 30, 44),
    (60, 60, 60),
    (36, 30, 36),
    (20, 20, 21, 22),
    (59, 33, 47, 33, 59, 33, 60),
]


@pytest.mark.parametrize("degree", [1024, 4096, 8192, 16384, 32768])
@pytest.mark.parametrize("sizes", [*SIZES, (28,) * 14])
def test_primes_are_those_of_seal(degree: Any, sizes: Any) -> None:
    try:
        expected = [m.value() for m in sealapi.CoeffModulus.Create(degree, list(sizes))]
    except RuntimeError:
        with pytest.raises(CompileError, match="exist for ring degree"):
            ntt_primes(degree, sizes)
    else:
        assert list(ntt_primes(degree, sizes)) == expected


def test_too_few_primes_are_refused() -> None:
    with pytest.raises(CompileError, match=r"only \d of the 3 primes of 15 bits"):
        ntt_primes(8192, (15, 15, 15))
    with pytest.raises(CompileError, match="61 bits"):
        ntt_primes(8192, (61,))


def test_is_prime() -> None:
    sieve = [n for n in range(200) if n > 1 and all(n % d for d in range(2, n))]
    assert [n for n in range(200) if is_prime(n)] == sieve
    assert not is_prime(3215031751)  # a strong pseudoprime to bases 2, 3, 5 and 7
    assert not is_prime((2**31 - 1) ** 2)
    assert is_prime(2**61 - 1)


def test_security_table_is_within_seals() -> None:
    for degree, bits in MAX_MODULUS_BITS.items():
        assert bits <= sealapi.CoeffModulus.MaxBitCount(degree, sealapi.SEC_LEVEL_TYPE.TC128)
        assert max_modulus_bits(degree) == bits
        check_security(degree, bits)
        with pytest.raises(CompileError, match="too large for ring degree"):
            check_security(degree, bits + 1)
    with pytest.raises(CompileError, match="ring degree 2048 is not in"):
        max_modulus_bits(2048)


def test_derived_facts() -> None:
    parameters = Parameters(8192, (28, 28, 28, 30, 28, 28, 40), 26)
    assert parameters.slots == 4096
    assert parameters.levels == 5
    assert parameters.modulus_bits == 210
    assert parameters.special_prime == parameters.primes[-1]
    assert parameters.data_primes == parameters.primes[:-1]
    assert parameters.modulus(0) == parameters.primes[0]
    assert parameters.modulus(5) == math.prod(parameters.data_primes)
    assert parameters.galois_key_bytes == 6 * 2 * 7 * 8192 * 8
    assert parameters.ciphertext_bytes(5) == 786432
    assert parameters.ciphertext_bytes(0, polynomials=3) == 3 * 8192 * 8


def test_a_product_rescales_to_the_scale_below() -> None:
    parameters = Parameters(16384, (40, 30, 28, 33, 30, 44), 27)
    assert parameters.scale(0) == 2.0**27
    for level in range(1, parameters.levels + 1):
        product = parameters.scale(level) ** 2 / parameters.primes[level]
        assert product == pytest.approx(parameters.scale(level - 1), rel=1e-15)


def test_scales_where_primes_stand_for_several_levels() -> None:
    parameters = Parameters(8192, (54, 50, 25, 26, 59), 25, level_units=(2, 2, 1, 1))
    virtual, primes = parameters.virtual, parameters.primes
    assert virtual.highest == 5
    assert [virtual.prime(level) for level in range(6)] == [0, 0, 1, 1, 2, 3]
    assert [parameters.scale(p) for p in range(4)] == [
        parameters.virtual_scale(level) for level in (1, 3, 4, 5)
    ]
    assert parameters.virtual_scale(0) == 2.0**50
    # A product of ciphertexts reads a top; below it a plaintext brings the scale to the next.
    for level in (1, 3, 4, 5):
        product = parameters.virtual_scale(level) ** 2
        if virtual.is_top(level - 1):
            product /= primes[virtual.prime(level)]
        assert product == pytest.approx(parameters.virtual_scale(level - 1), rel=1e-14)
    inside = parameters.virtual_scale(2) / parameters.virtual_scale(3)
    assert math.log2(inside) == pytest.approx(25, abs=0.01)


def test_virtual_levels_know_their_groups() -> None:
    virtual = VirtualLevels((2, 1, 3))
    assert [virtual.is_top(level) for level in range(6)] == [False, True, True, False, False, True]
    assert [virtual.top_from(level) for level in range(6)] == [1, 1, 2, 5, 5, 5]
    assert [virtual.top_within(level) for level in range(-1, 6)] == [-1, -1, 1, 2, 2, 2, 5]
    # Levels beyond the highest have a prime each.
    assert [virtual.prime(level) for level in (6, 7)] == [3, 4]
    assert virtual.top_from(7) == virtual.top_within(7) == 7
    for units in ((), (1, 0)):
        with pytest.raises(CompileError, match="one level or more"):
            VirtualLevels(units)


@pytest.mark.parametrize("level", [-1, 3])
def test_a_level_that_does_not_exist_is_refused(level: Any) -> None:
    parameters = Parameters(8192, (30, 28, 28, 30), 26)
    for method in (parameters.scale, parameters.modulus, parameters.ciphertext_bytes):
        with pytest.raises(CompileError, match=f"level {level} does not exist"):
            method(level)


def test_seal_accepts_the_parameters_and_key_sizes() -> None:
    chosen = Parameters(8192, (30, 28, 28, 30), 26)
    seal = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    seal.set_poly_modulus_degree(chosen.poly_modulus_degree)
    moduli = sealapi.CoeffModulus.Create(8192, list(chosen.coeff_modulus_bits))
    seal.set_coeff_modulus(moduli)
    context = sealapi.SEALContext(seal, True, sealapi.SEC_LEVEL_TYPE.TC128)
    assert context.parameters_set()
    assert tuple(modulus.value() for modulus in moduli) == chosen.primes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2048, (20, 20), 10), "ring degree 2048"),
        ((8192, (30,), 26), "too short"),
        ((8192, (30, 61, 61), 26), "prime 1 .* 61 bits"),
        ((8192, (1, 30, 30), 26), "prime 0 .* 1 bits"),
        ((8192, (30, 28, 28), 26, 128, (1,)), "1 numbers of levels do not match 2 data primes"),
        ((8192, (30, 28, 28), 26, 128, (1, 0)), "one level or more"),
        ((8192, (60, 60, 60, 60), 26), "240 bits is too large"),
        ((8192, (30, 30), 0), "scale_bits"),
        ((8192, (30, 30), 61), "scale_bits"),
        ((8192, (30, 30), 26, 192), "192 bits is not offered"),
    ],
)
def test_bad_parameters_are_refused(arguments: Any, message: Any) -> None:
    with pytest.raises(CompileError, match=message):
        Parameters(*arguments)


def test_json_round_trip() -> None:
    for units in ((), (1, 2, 1)):
        parameters = Parameters(8192, (30, 28, 28, 30), 26, level_units=units)
        assert Parameters.from_json(json.loads(json.dumps(parameters.to_json()))) == parameters


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scale_bits": "26"}, InputError, "scale_bits"),
        ({"scale_bits": True}, InputError, "scale_bits"),
        ({"coeff_modulus_bits": [30, 28.0, 30]}, InputError, "coeff_modulus_bits"),
        ({"coeff_modulus_bits": "30"}, InputError, "must be a list"),
        ({"extra": 1}, InputError, "exactly the fields"),
        ({"security_bits": 0}, CompileError, "not offered"),
        ({"coeff_modulus_bits": [60] * 9, "level_units": [1] * 8}, CompileError, "too large"),
        ({"coeff_modulus_bits": [30, 30]}, CompileError, "do not match"),
        ({"level_units": [1, 2.0, 1]}, InputError, "level_units"),
        ({"level_units": []}, InputError, "must be a list"),
        ({"level_units": [1, -2, 1]}, CompileError, "one level or more"),
    ],
)
def test_bad_json_is_refused(change: Any, error: Any, message: Any) -> None:
    data = Parameters(8192, (30, 28, 28, 30), 26).to_json()
    with pytest.raises(error, match=message):
        Parameters.from_json(data | change)


def test_json_must_be_a_complete_object() -> None:
    with pytest.raises(InputError, match="JSON object"):
        Parameters.from_json([8192])
    with pytest.raises(InputError, match="exactly the fields"):
        Parameters.from_json({"poly_modulus_degree": 8192})
