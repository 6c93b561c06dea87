"""Sums of products of ciphertexts: exact residues, and which operations become one sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import Context
from hecompile.runtime.inner_products import (
    LARGEST_PRIME_BITS,
    InnerPlan,
    InnerProduct,
    InnerProducts,
    inner_product,
    plan_inner_products,
)
from hecompile.runtime.residues import load_residues, residue_access

CHAIN = Parameters(4096, (36, 30, 40), 30)
WIDE = Parameters(8192, (33, 27, 41, 50, 60), 27)
COLUMNS = 16


def exact(pairs: list[tuple[np.ndarray, np.ndarray]], prime: int) -> np.ndarray:
    """The same sums in Python's integers."""
    total = np.zeros((3, pairs[0][0].shape[1]), dtype=object)
    for x, y in pairs:
        a, b = x.astype(object), y.astype(object)
        total += np.stack([a[0] * b[0], a[0] * b[1] + a[1] * b[0], a[1] * b[1]])
    return total % prime


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(20, LARGEST_PRIME_BITS),
    terms=st.integers(1, 70),
    seed=st.integers(0, 99),
    extreme=st.booleans(),
)
def test_sums_are_exact_for_any_prime_and_number_of_terms(
    bits: int, terms: int, seed: int, extreme: bool
) -> None:
    # Any odd modulus of these bits will do: nothing here asks for a prime.
    prime = (1 << bits) - 1 - 2 * seed
    random = np.random.default_rng(seed)
    low = prime - 2 if extreme else 0
    pairs = [
        tuple(random.integers(low, prime, size=(2, 2, COLUMNS), dtype=np.uint64))
        for _ in range(terms)
    ]
    np.testing.assert_array_equal(inner_product(pairs, prime).astype(object), exact(pairs, prime))


@pytest.mark.parametrize(("parameters", "level"), [(CHAIN, 1), (WIDE, 2), (WIDE, 3)])
def test_residues_are_those_that_seal_computes(parameters: Parameters, level: int) -> None:
    context = Context(parameters)
    generator = seal.KeyGenerator(context.seal)
    public = seal.PublicKey()
    generator.create_public_key(public)
    encryptor, evaluator = seal.Encryptor(context.seal, public), seal.Evaluator(context.seal)
    live = {}
    for i in range(9):
        live[str(i)] = seal.Ciphertext()
        encryptor.encrypt(context.encode(0.1 * i + 0.1, level, 2.0**20), live[str(i)])
    terms = tuple((str(i), str((2 * i + 1) % 9)) for i in range(9))
    one = InnerProduct("sum", level, 2.0**40, terms)
    found = InnerProducts(InnerPlan({0: one}, frozenset()), context).run(one, live)
    wanted = None
    for x, y in terms:
        product = seal.Ciphertext()
        evaluator.multiply(live[x], live[y], product)
        if wanted is None:
            wanted = product
        else:
            evaluator.add_inplace(wanted, product)
    access = residue_access(context)
    np.testing.assert_array_equal(access.view(found), access.view(wanted))
    assert (found.scale, found.size()) == (2.0**40, 3)


class Write:
    """Appends operations at level 1 of a chain of small primes."""

    def __init__(self, parameters: Parameters = CHAIN) -> None:
        self.parameters = parameters
        self.build = Builder(name="sums")

    def emit(self, op: Operation, level: int = 1) -> Value:
        inferred = op.infer()
        assert isinstance(inferred, CipherType)
        scale = 2.0**60 if isinstance(op, he.Mul | he.Add) else 2.0**30
        value = Value(self.build.fresh(), replace(inferred, level=level, scale=scale))
        self.build.keep(op.with_result(value))
        return value

    def factor(self, name: str) -> Value:
        return self.emit(he.Weight(source=name, period=4))

    def product(self, i: int) -> Value:
        return self.emit(he.Mul(x=self.factor(f"x{i}"), y=self.factor(f"w{i}")))

    def sum(self, count: int) -> Value:
        total = self.product(0)
        for i in range(1, count):
            total = self.emit(he.Add(x=total, y=self.product(i)))
        return total

    def finish(self, *outputs: Value) -> Program:
        self.build.keep(he.Output(xs=outputs, label="y", dims=(1, 4)))
        return self.build.finish(parameters=self.parameters)


def test_a_chain_of_sums_is_one_sum_at_its_last_operation() -> None:
    write = Write()
    total = write.sum(5)
    plan = plan_inner_products(write.finish(total))
    ((last, one),) = plan.sums.items()
    assert (one.result, one.level, one.scale, len(one.terms)) == (total.name, 1, 2.0**60, 5)
    program = write.finish(total)
    assert program.operations[last].defined == total
    skipped = [program.operations[i].name for i in sorted(plan.skipped)]
    assert (skipped.count("he.mul"), skipped.count("he.add")) == (5, 3)
    # Factors live until their sum is due.
    lives = plan.last_uses(program)
    assert {lives[name] for pair in one.terms for name in pair} == {last}


def test_what_somebody_else_reads_is_computed() -> None:
    write = Write()
    part = write.sum(3)
    total = write.emit(he.Add(x=part, y=write.product(7)))
    plan = plan_inner_products(write.finish(total, part))
    assert [one.result for one in plan.sums.values()] == [part.name]


def test_a_value_added_to_itself_is_no_operand_of_one_sum() -> None:
    write = Write()
    part = write.sum(3)
    twice = write.emit(he.Add(x=part, y=part))
    plan = plan_inner_products(write.finish(twice))
    assert [one.result for one in plan.sums.values()] == [part.name]


def test_no_sum_reaches_over_a_refresh() -> None:
    write = Write()
    part = write.sum(3)
    fresh = write.emit(he.Refresh(xs=(write.factor("z"),)))
    rest = write.product(8)
    total = write.emit(he.Add(x=part, y=rest))
    plan = plan_inner_products(write.finish(total, fresh))
    assert [one.result for one in plan.sums.values()] == [part.name]
    assert len(plan.skipped) == 4


def test_few_products_and_chains_of_large_primes_are_left_to_seal() -> None:
    write = Write()
    assert not plan_inner_products(write.finish(write.sum(2))).sums
    write = Write(Parameters(8192, (55, 50, 60), 40))
    assert not plan_inner_products(write.finish(write.sum(5))).sums


def test_factors_of_another_shape_are_refused() -> None:
    context = Context(CHAIN)
    residues = np.ones((2, 1, 4096), dtype=np.uint64)
    live = {"a": load_residues(context, residues, 0, 1.0)}
    one = InnerProduct("sum", 1, 1.0, (("a", "a"),))
    with pytest.raises(Exception, match="has not the shape"):
        InnerProducts(InnerPlan({0: one}, frozenset()), context).run(one, live)
