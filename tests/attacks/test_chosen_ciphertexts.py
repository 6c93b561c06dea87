"""Chosen ciphertexts: what is released of them is the key, flooded or not.

Flooding hides the errors of honest ciphertexts. Whoever adds alpha X^j to the second polynomial of
an encryption of 0 has alpha X^j s encrypted, whose slots the program works on: they are the answer,
and an answer is not hidden from whom it is for. So the bits that releases carry are bounded, and a
policy that gives both to one person beyond the bound is refused (rule S6).
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from hecompile.access.proof import ProgramFacts
from hecompile.errors import AccessDeniedError
from hecompile.ir.constants import Array
from hecompile.runtime.context import Context
from hecompile.runtime.envelope import input_fields, seal_envelope
from hecompile.runtime.header import split_envelope
from hecompile.runtime.ntt import Residues, transform
from hecompile.runtime.packing import pack, unpack
from hecompile.runtime.plaintexts import load_plaintext
from hecompile.runtime.residues import load_residues, residue_access
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.wire import ciphertext_bytes
from tests.attacks.key_recovery import Attacker, is_key
from tests.encrypted.releasing import (
    BOUND,
    ELEMENTS,
    FLOOD_BITS,
    PERSONS,
    STEP,
    hospital,
    people,
    plan,
    rounded,
)
from tests.unit.proof_cases import check, refuse

OFFSET = 0.7
"""Of each input, so that its square tells of small changes in proportion."""

CHANGE = 0.1
"""Typical size of what the key adds to an input."""

BUDGET = 2 * PERSONS
POLICY = f"""\
format = 2
[roles.doctor]
[roles.cloud]
[roles.vault]
[[permissions]]
role = "doctor"
actions = ["encrypt", "submit"]
objects = ["input:x"]
[[permissions]]
role = "doctor"
actions = ["declassify"]
objects = ["output:y"]
obligations = {{flood = {FLOOD_BITS}, round = {STEP}, budget = {BUDGET}}}
[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]
[[permissions]]
role = "vault"
actions = ["hold"]
objects = ["key:secret"]
"""


class Chooser:
    """Has the public key, and is shown what is released to it."""

    def __init__(self) -> None:
        self.spec = hospital().spec
        self.context = Context(self.spec.parameters)
        (self.cipher,) = self.spec.input_ciphertexts
        (self.output,) = self.spec.output_ciphertexts
        self.degree = self.spec.parameters.poly_modulus_degree
        self.primes = self.spec.parameters.data_primes[: self.cipher.level + 1]
        self.alpha = round(CHANGE / math.sqrt(self.degree / 3.0) * self.cipher.scale)

    def crafted(self, power: int) -> bytes:
        """An honest encryption of the offset with alpha X^power added to its second polynomial."""
        (envelope,) = hospital().client.encrypt({"x": np.full((PERSONS, ELEMENTS), OFFSET)})
        parts = split_envelope(envelope, "envelope")
        level, scale = self.cipher.level, self.cipher.scale
        fresh = ciphertext_from_bytes(self.context, envelope[parts.end :], level, scale, what="x")
        rows = np.array(residue_access(self.context).view(fresh))
        moduli = np.array(self.primes, dtype=np.uint64)[:, None]
        rows[1] = (rows[1] + self._monomial(power)) % moduli
        blob = ciphertext_bytes(self.context, load_residues(self.context, rows, level, scale))
        fields = input_fields(self.spec)
        return seal_envelope(parts.header, self.spec.input_ciphertexts, [blob], fields=fields)

    def _monomial(self, power: int) -> Residues:
        """Residues of alpha X^power, all of which are below half a word."""
        found = []
        for prime in self.primes:
            x = np.zeros((1, 1, self.degree), dtype=np.uint64)
            x[0, 0, power] = self.alpha % prime
            found.append(transform((prime,), self.degree, self.degree).forward(x)[0, 0])
        return np.array(found)

    def key(self, real: Array, imaginary: Array) -> list[int]:
        """The key from the releases of X^0 and X^(N/2), each of shape (persons, elements).

        With a + ib what the key adds to a slot, the answers are those of (o + a + ib)^2 and of
        (o - b + ia)^2, as a multiplication by X^(N/2) is one by i: solved by iteration, and the
        values at all roots of X^N + 1 are the key's after a Fourier transform. Noise in them is
        averaged over all N slots, as least squares would, as the transform is unitary.
        """
        assert self.output.layout is not None
        first, second = (
            pack(raw, self.output.layout, self.output.period) for raw in (real, imaginary)
        )
        a, b = np.zeros_like(first), np.zeros_like(first)
        for _ in range(60):
            square = a * a - b * b
            a, b = (
                (first - OFFSET**2 - square) / (2 * OFFSET),
                -(second - OFFSET**2 + square) / (2 * OFFSET),
            )
        values = np.zeros(2 * self.degree, dtype=complex)
        values[self._roots()] = (a + 1j * b) * self.cipher.scale / self.alpha
        values[-self._roots() % (2 * self.degree)] = (a - 1j * b) * self.cipher.scale / self.alpha
        found = np.fft.fft(values)[: self.degree].real / self.degree
        return [int(c) for c in np.rint(found)]

    def _roots(self) -> np.ndarray:
        """Which power of the primitive root of order 2 N each slot evaluates at."""
        root = self._slots(1) - 1j * self._slots(self.degree // 2 + 1)
        return np.rint(np.angle(root) / np.pi * self.degree).astype(int) % (2 * self.degree)

    def _slots(self, power: int) -> Array:
        """Real parts of the slots of X^power."""
        x = np.zeros((1, 1, self.degree), dtype=np.uint64)
        x[0, 0, power] = 1 << 40
        change = transform(self.primes[:1], self.degree, self.degree)
        plain = load_plaintext(self.context, change.forward(x)[0], 0, float(1 << 40))
        return self.context.decode(plain)


def evaluated(envelope: bytes) -> bytes:
    evaluation = hospital().evaluator.start(envelope)
    assert evaluation.advance() is None
    return evaluation.output()


def test_two_releases_within_the_budget_give_the_whole_key(tmp_path: Path) -> None:
    """It works: custodian, flooding, rounding and counting are as they should be, and no help."""
    chooser = Chooser()
    custodian = hospital().custodian(tmp_path, rounded(BUDGET))
    released = [
        custodian.release(evaluated(chooser.crafted(power))).raw["y"]
        for power in (0, chooser.degree // 2)
    ]
    with pytest.raises(AccessDeniedError, match="512 releases, 512 were made"):
        custodian.release(evaluated(chooser.crafted(1)))
    key = chooser.key(released[0], released[1])
    assert is_key(key)
    # It opens what was never released.
    (third,) = hospital().results(people(99))
    layout = chooser.output.layout
    assert layout is not None
    slots = Attacker(chooser.spec, chooser.context).decrypt(key, third)
    assert np.abs(unpack(slots, layout, PERSONS) - people(99) ** 2).max() < BOUND


def facts(budget: int) -> ProgramFacts:
    degree = hospital().spec.parameters.poly_modulus_degree
    return ProgramFacts(("x",), ("y",), releases=(plan(budget),), security=(degree, 200))


def test_the_policy_under_which_it_works_is_refused() -> None:
    # 512 releases of 16 values of 43 each against a key of 8192 ternary coefficients.
    refuse(
        POLICY,
        "rule S6",
        "role 'doctor' may submit input:x (doctor) and may also declassify output:y (doctor)",
        "reads the key out of releases, which can carry 44452 bits of the 12984 of the key",
        "lower the budgets",
        facts=facts(BUDGET),
    )
    fewer = POLICY.replace(f"budget = {BUDGET}", "budget = 18")
    check(fewer, facts(18))
    refuse(fewer.replace("18", "19"), "rule S6", "1650 bits", facts=facts(19))


def test_the_bits_counted_are_no_fewer_than_an_answer_can_take(tmp_path: Path) -> None:
    """Whatever is sent, a released value is one of the multiples of the step within the range."""
    chooser = Chooser()
    custodian = hospital().custodian(tmp_path, rounded(BUDGET))
    raw = custodian.release(evaluated(chooser.crafted(0))).raw["y"]
    ranges = dataclasses.asdict(chooser.spec.outputs[0])["ranges"]["whole"]
    assert raw.min() >= ranges["lower"] - STEP
    assert raw.max() <= ranges["upper"] + STEP
    assert len(np.unique(np.rint(raw / STEP))) <= 3 + plan(BUDGET).span / STEP
