"""What every generated program.py begins with; it stands here so that it is checked like the rest.

It uses numpy and TenSEAL only, and no name of hecompile.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as seal


class Machine:
    """CKKS operations of SEAL, with evaluation keys only. A level counts the rescales left."""

    def __init__(
        self, degree: int, prime_bits: list[int], constants: dict[str, Any], keys: str | Path
    ) -> None:
        """Take the parameters, the constants by name, and the folder of evaluation keys."""
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(degree)
        primes = seal.CoeffModulus.Create(degree, prime_bits)
        parameters.set_coeff_modulus(primes)
        self.primes = tuple(int(prime.value()) for prime in primes)
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set():
            raise ValueError(self.context.parameters_error_message())
        self.slots = degree // 2
        self.levels: list[list[int]] = []
        data = self.context.first_context_data()
        while data is not None:
            self.levels.insert(0, data.parms_id())
            data = data.next_context_data()
        self.encoder = seal.CKKSEncoder(self.context)
        self.evaluator = seal.Evaluator(self.context)
        self.constants = constants
        self.keys = Path(keys)
        self.relin_keys = seal.RelinKeys()
        self.relin_keys.load(self.context, str(self.keys / "relin.key"))
        self.galois_keys: dict[int, Any] = {}

    def load(self, path: str | Path) -> Any:
        """Read a ciphertext from a file."""
        result = seal.Ciphertext()
        result.load(self.context, str(path))
        return result

    def encode_values(self, values: Any, level: int, scale: float) -> Any:
        """Encode a vector, repeated over all slots; one number fills them too."""
        plain = seal.Plaintext()
        values = np.asarray(values, dtype=np.float64)
        if np.all(values == values.flat[0]):
            self.encoder.encode(float(values.flat[0]), self.levels[level], scale, plain)
        else:
            tiled = np.tile(values, self.slots // values.size).tolist()
            self.encoder.encode(tiled, self.levels[level], scale, plain)
        return plain

    def encode(self, name: str, level: int, scale: float) -> Any:
        """Encode the constant of that name."""
        return self.encode_values(self.constants[name], level, scale)

    def settled(self, result: Any, scale: float) -> Any:
        """Return a result whose scale is within 1e-6 of the declared one, set to it exactly."""
        if abs(result.scale / scale - 1.0) >= 1e-6:
            raise ValueError(f"scale {result.scale} where {scale} is declared")
        result.scale = scale
        return result

    def add(self, x: Any, y: Any, scale: float) -> Any:
        """Return x + y."""
        result = seal.Ciphertext()
        self.evaluator.add(self.settled(x, y.scale), y, result)
        return self.settled(result, scale)

    def sub(self, x: Any, y: Any, scale: float) -> Any:
        """Return x - y."""
        result = seal.Ciphertext()
        self.evaluator.sub(self.settled(x, y.scale), y, result)
        return self.settled(result, scale)

    def mul(self, x: Any, y: Any, scale: float) -> Any:
        """Return x * y, of three polynomials."""
        result = seal.Ciphertext()
        self.evaluator.multiply(x, y, result)
        return self.settled(result, scale)

    def add_plain(self, x: Any, plain: Any, scale: float) -> Any:
        """Return x + plain."""
        result = seal.Ciphertext()
        self.evaluator.add_plain(self.settled(x, plain.scale), plain, result)
        return self.settled(result, scale)

    def mul_plain(self, x: Any, plain: Any, scale: float) -> Any:
        """Return x * plain; the smallest plaintext stands for zero, which SEAL refuses."""
        if plain.is_zero():
            level = self.levels.index(x.parms_id())
            plain = self.encode_values(1.0 / plain.scale, level, plain.scale)
        result = seal.Ciphertext()
        self.evaluator.multiply_plain(x, plain, result)
        return self.settled(result, scale)

    def negate(self, x: Any, scale: float) -> Any:
        """Return -x."""
        result = seal.Ciphertext()
        self.evaluator.negate(x, result)
        return self.settled(result, scale)

    def rotate(self, x: Any, steps: int, scale: float) -> Any:
        """Return x rotated by `steps` slots to the left."""
        if steps not in self.galois_keys:
            self.galois_keys[steps] = seal.GaloisKeys()
            self.galois_keys[steps].load(self.context, str(self.keys / f"galois-{steps}.key"))
        result = seal.Ciphertext()
        self.evaluator.rotate_vector(x, steps, self.galois_keys[steps], result)
        return self.settled(result, scale)

    def relinearize(self, x: Any, scale: float) -> Any:
        """Return x with two polynomials instead of three."""
        result = seal.Ciphertext()
        self.evaluator.relinearize(x, self.relin_keys, result)
        return self.settled(result, scale)

    def rescale(self, x: Any, scale: float) -> Any:
        """Return x divided by the last prime of its level, one level lower."""
        result = seal.Ciphertext()
        self.evaluator.rescale_to_next(x, result)
        return self.settled(result, scale)

    def drop_level(self, x: Any, level: int, scale: float) -> Any:
        """Return x at a lower level."""
        result = seal.Ciphertext()
        self.evaluator.mod_switch_to(x, self.levels[level], result)
        return self.settled(result, scale)

    def sum_mul_plain(self, xs: list[Any], name: str, level: int, scale: float) -> Any:
        """Return the sum of each x times its row of the constant of that name."""
        rows = self.constants[name]
        total = None
        for x, row in zip(xs, rows, strict=True):
            plain = self.encode_values(row, level, scale / x.scale)
            if plain.is_zero():
                continue
            product = self.mul_plain(x, plain, scale)
            total = product if total is None else self.add(total, product, scale)
        if total is None:
            plain = self.encode_values(0.0, level, scale / xs[0].scale)
            total = self.mul_plain(xs[0], plain, scale)
        return total


def no_key_holder(group: int, ciphertexts: list[Any]) -> Sequence[Any]:
    """Refuse a refresh: `compute` was given nobody who holds the secret key."""
    raise RuntimeError(
        f"refresh {group} of {len(ciphertexts)} ciphertexts needs the key holder: call compute()"
        " with a function that returns them refreshed"
    )


def read_constants(path: Path) -> dict[str, Any]:
    """Read the constants by name."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def run(
    arguments: list[str],
    degree: int,
    prime_bits: list[int],
    inputs: list[str],
    compute: Callable[[Machine, dict[str, Any]], dict[str, list[Any]]],
) -> None:
    """Compute from files to files; the arguments are the folders of keys, inputs and outputs."""
    if len(arguments) != 3:
        sys.exit("usage: python program.py KEYS INPUTS OUTPUTS")
    keys, source, target = (Path(argument) for argument in arguments)
    constants = read_constants(Path(__file__).resolve().parent / "constants.npz")
    machine = Machine(degree, prime_bits, constants, keys)
    values = {name: machine.load(source / f"{name}.ct") for name in inputs}
    target.mkdir(exist_ok=True)
    for number, ciphertexts in enumerate(compute(machine, values).values()):
        for part, ciphertext in enumerate(ciphertexts):
            ciphertext.save(str(target / f"output{number}-{part}.ct"))
