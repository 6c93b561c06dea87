"""The noise model against real ciphertexts at 128-bit security."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as sealapi

from hecompile.errors import CompileError
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters

DEGREE = 8192
PARAMETERS = (
    Parameters(DEGREE, (30, 28, 28, 28, 28, 30), 26),
    Parameters(DEGREE, (40, 30, 30, 30, 30, 44), 28),
)


class Seal:
    """Fresh keys and the calls that the measurements need."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        seal = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        seal.set_poly_modulus_degree(DEGREE)
        bits = list(parameters.coeff_modulus_bits)
        seal.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, bits))
        self.context = sealapi.SEALContext(seal, True, sealapi.SEC_LEVEL_TYPE.TC128)
        keys = sealapi.KeyGenerator(self.context)
        public = sealapi.PublicKey()
        keys.create_public_key(public)
        self.galois_keys = sealapi.GaloisKeys()
        keys.create_galois_keys([3], self.galois_keys)
        self.relin_keys = sealapi.RelinKeys()
        keys.create_relin_keys(self.relin_keys)
        self.encoder = sealapi.CKKSEncoder(self.context)
        self.encryptor = sealapi.Encryptor(self.context, public)
        self.symmetric = sealapi.Encryptor(self.context, keys.secret_key())
        self.decryptor = sealapi.Decryptor(self.context, keys.secret_key())
        self.evaluator = sealapi.Evaluator(self.context)
        self.parms_ids: list[Any] = []
        data = self.context.first_context_data()
        while data is not None:
            self.parms_ids.insert(0, data.parms_id())
            data = data.next_context_data()

    def encode(self, values: Any, scale: Any, level: Any) -> Any:
        plain = sealapi.Plaintext()
        self.encoder.encode(values, self.parms_ids[level], scale, plain)
        return plain

    def encrypt(self, values: Any, scale: Any, level: Any) -> Any:
        cipher = sealapi.Ciphertext()
        self.encryptor.encrypt(self.encode(list(values), scale, level), cipher)
        return cipher

    def decode(self, plain: Any) -> Any:
        return np.array(self.encoder.decode_double(plain))

    def decrypt(self, cipher: Any) -> Any:
        plain = sealapi.Plaintext()
        self.decryptor.decrypt(cipher, plain)
        return self.decode(plain)

    def rotation_noise(self, cipher: Any) -> Any:
        rotated = sealapi.Ciphertext()
        self.evaluator.rotate_vector(cipher, 1, self.galois_keys, rotated)
        return self.decrypt(rotated) - np.roll(self.decrypt(cipher), -1)

    def relinearization_noise(self, cipher: Any) -> Any:
        product = sealapi.Ciphertext()
        self.evaluator.square(cipher, product)
        before = self.decrypt(product)
        self.evaluator.relinearize_inplace(product, self.relin_keys)
        return self.decrypt(product) - before, product.scale


@dataclass(frozen=True)
class Case:
    """Real keys and a level to measure at."""

    seal: Seal
    level: int

    @property
    def parameters(self) -> Parameters:
        return self.seal.parameters

    @property
    def scale(self) -> float:
        return 2.0 ** (self.parameters.scale_bits - (6 if self.level == 0 else 0))


@pytest.fixture(scope="module", params=PARAMETERS, ids=lambda p: str(p.coeff_modulus_bits[0]))
def seal(request: Any) -> Any:
    return Seal(request.param)


@pytest.fixture(params=["top", "middle", "one"])
def case(seal: Any, request: Any) -> Any:
    levels = {"top": seal.parameters.levels, "middle": 2, "one": 1}
    return Case(seal, levels[request.param])


def samples(period: Any = DEGREE // 2) -> Any:
    values = np.random.default_rng(7).uniform(-1, 1, period)
    return np.tile(values, DEGREE // 2 // period)


def assert_deviation(error: Any, variance: Any, factor: Any = 1.5) -> Any:
    """The measured standard deviation is within `factor` of the predicted one."""
    normalised = float(np.std(error / np.sqrt(variance)))
    assert 1 / factor < normalised < factor


@pytest.mark.parametrize("period", [DEGREE // 2, 1024, 256])
def test_encoding(case: Any, period: Any) -> None:
    values = samples(period)
    decoded = case.seal.decode(case.seal.encode(list(values), case.scale, case.level))
    assert_deviation(
        decoded - values, noise.encoding(case.parameters, case.scale, period), factor=1.2
    )


def test_encoding_of_a_scalar_errs_by_what_is_predicted(seal: Any) -> None:
    numbers = np.random.default_rng(8).uniform(-1, 1, 200)
    scale = 2.0**20
    errors = [seal.decode(seal.encode(float(x), scale, 1))[5] - x for x in numbers]
    np.testing.assert_allclose(errors, noise.rounding_error(numbers, scale), atol=1e-12)


def test_encryption(case: Any) -> None:
    plain = case.seal.encode(list(samples()), case.scale, case.level)
    cipher = sealapi.Ciphertext()
    case.seal.encryptor.encrypt(plain, cipher)
    error = case.seal.decrypt(cipher) - case.seal.decode(plain)
    assert_deviation(error, noise.encryption(case.parameters, case.scale, case.level), factor=1.2)


def test_symmetric_encryption(case: Any, tmp_path: Path) -> None:
    plain = case.seal.encode(list(samples()), case.scale, case.level)
    cipher = sealapi.Ciphertext()
    place = tmp_path / "fresh"
    case.seal.symmetric.encrypt_symmetric(plain).save(str(place))
    cipher.load(case.seal.context, str(place))
    error = case.seal.decrypt(cipher) - case.seal.decode(plain)
    assert_deviation(error, noise.symmetric_encryption(case.parameters, case.scale), factor=1.2)


def test_encryption_is_at_the_top_unless_told(seal: Any) -> None:
    parameters = seal.parameters
    assert noise.encryption(parameters, 2.0**26) == noise.encryption(
        parameters, 2.0**26, parameters.levels
    )


def test_rescale(case: Any) -> None:
    cipher = case.seal.encrypt(samples(), case.scale, case.level)
    one = case.seal.encode(1.0, 2.0**20, case.level)
    case.seal.evaluator.multiply_plain_inplace(cipher, one)
    before = case.seal.decrypt(cipher)
    case.seal.evaluator.rescale_to_next_inplace(cipher)
    error = case.seal.decrypt(cipher) - before
    assert_deviation(error, noise.rescale(case.parameters, cipher.scale), factor=1.2)


def test_rescale_of_three_polynomials(seal: Any) -> None:
    cipher = seal.encrypt(samples(), 2.0**26, seal.parameters.levels)
    seal.evaluator.square_inplace(cipher)
    before = seal.decrypt(cipher)
    seal.evaluator.rescale_to_next_inplace(cipher)
    error = seal.decrypt(cipher) - before
    assert_deviation(error, noise.rescale(seal.parameters, cipher.scale, polynomials=3))


def test_dropping_a_level_is_exact(seal: Any) -> None:
    cipher = seal.encrypt(samples(), 2.0**26, seal.parameters.levels)
    before = seal.decrypt(cipher)
    seal.evaluator.mod_switch_to_next_inplace(cipher)
    assert np.max(np.abs(seal.decrypt(cipher) - before)) < 1e-12
    assert noise.drop_level() == 0.0


@pytest.mark.parametrize("level", [0, 1, 2, 4])
def test_rotation(seal: Any, level: Any) -> None:
    case = Case(seal, level)
    error = seal.rotation_noise(seal.encrypt(samples(), case.scale, level))
    assert_deviation(error, noise.key_switch_slots(case.parameters, level, case.scale))
    # Slots are exchangeable but for those near the root 1, so most of them share one deviation.
    typical = np.median(noise.key_switch_slots(case.parameters, level, case.scale))
    assert_deviation(np.sort(error)[50:-50], typical)


@pytest.mark.parametrize("level", [1, 2, 4])
def test_relinearization(seal: Any, level: Any) -> None:
    error, scale = seal.relinearization_noise(seal.encrypt(samples(), 2.0**26, level))
    assert_deviation(error, noise.key_switch_slots(seal.parameters, level, scale))


@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda p: str(p.coeff_modulus_bits[0]))
def test_key_switch_is_the_mean_over_slots_and_keys(parameters: Any) -> None:
    level = parameters.levels
    predicted = noise.key_switch_slots(parameters, level, 2.0**26)
    assert np.mean(predicted) == pytest.approx(noise.key_switch(parameters, level, 2.0**26))
    errors = []
    for _ in range(16):
        seal = Seal(parameters)
        errors.append(seal.rotation_noise(seal.encrypt(samples(), 2.0**26, level)))
    # One slot holds most of the energy, hence the wide factor over so few keys.
    assert_deviation(np.array(errors), noise.key_switch(parameters, level, 2.0**26), factor=2.0)
    assert_deviation(np.array(errors)[:, :3], predicted[:3], factor=2.0)


def test_slot_zero_bears_the_constant_part_of_the_digits() -> None:
    parameters = Parameters(DEGREE, (30, 28, 28, 28, 28, 30), 26)
    variances = noise.key_switch_slots(parameters, 4, 2.0**26)
    assert int(np.argmax(variances)) == 0
    assert 80 < np.sqrt(variances[0] / np.median(variances)) < 120
    roomy = Parameters(DEGREE, (30, 28, 28, 28, 28, 40), 26)
    relieved = noise.key_switch_slots(roomy, 4, 2.0**26)
    assert np.sqrt(relieved[0] / np.median(relieved)) < 5


def test_the_same_key_repeats_its_offset_in_slot_zero() -> None:
    parameters = PARAMETERS[0]
    seal = Seal(parameters)
    errors = [
        seal.rotation_noise(seal.encrypt(np.roll(samples(), k), 2.0**26, 4))[0] for k in range(4)
    ]
    typical = np.sqrt(np.median(noise.key_switch_slots(parameters, 4, 2.0**26)))
    assert np.std(errors) < 4 * typical


def test_float_rounding(seal: Any) -> None:
    values = samples()
    decoded = seal.decode(seal.encode(list(values), 2.0**80, seal.parameters.levels))
    magnitude = float(np.sqrt(np.mean(values**2)))
    assert_deviation(decoded - values, noise.float_rounding(seal.parameters, magnitude))


def test_bound_holds_for_products_of_gaussians() -> None:
    rng = np.random.default_rng(3)
    first, second = (rng.normal(size=(2, 50, 4096)) for _ in range(2))
    error = first[0] * second[0] - first[1] * second[1]
    limit = noise.bound(float(np.var(error)), 4096, failure=1e-2)
    largest = np.max(np.abs(error), axis=1)
    assert np.mean(largest > limit) <= 0.1
    assert limit < 2 * np.median(largest)


@pytest.mark.parametrize("terms", [3, 16, 100])
def test_sums_of_many_terms_have_lighter_tails(terms: int) -> None:
    rng = np.random.default_rng(4)
    error = rng.laplace(size=(100_000, terms)).sum(axis=1) / np.sqrt(2 * terms)
    limit = noise.bound(1.0, 1, failure=1e-3, terms=terms)
    assert np.mean(np.abs(error) > limit) <= 1e-3
    assert limit < 1.3 * np.quantile(np.abs(error), 1 - 1e-3)
    assert limit <= noise.bound(1.0, 1, failure=1e-3)


def test_parts_of_a_key_switch_make_the_whole() -> None:
    parameters = PARAMETERS[0]
    changing, repeated = noise.key_switch_parts(parameters, 4, 2.0**26)
    whole = noise.key_switch_slots(parameters, 4, 2.0**26)
    np.testing.assert_allclose(changing + repeated, whole)
    assert repeated[0] == repeated.max() > 1000 * np.median(repeated)


def test_bad_questions_are_refused(seal: Any) -> None:
    for function in (noise.key_switch, noise.key_switch_slots):
        with pytest.raises(CompileError, match="level 9 does not exist"):
            function(seal.parameters, 9, 2.0**26)
    with pytest.raises(CompileError, match="level 9 does not exist"):
        noise.encryption(seal.parameters, 2.0**26, 9)
    with pytest.raises(CompileError, match="4 polynomials"):
        noise.rescale(seal.parameters, 2.0**26, polynomials=4)
