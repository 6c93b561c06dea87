"""Views of SEAL's memory: of nothing else, never of freed memory, and tested where it counts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.numeric.parameters import Parameters
from hecompile.runtime import families, rawmemory
from hecompile.runtime.context import Context
from hecompile.runtime.plaintexts import PlaintextAccess, load_plaintext
from hecompile.runtime.rawmemory import LayoutError, MemoryAccess, Residues
from hecompile.runtime.residues import ResidueAccess, load_residues
from hecompile.runtime.scalar_matrix import Digits, Product

Make = Callable[[int], Any]
View = Callable[[Any], Residues]
SHORT = Parameters(8192, (30, 28, 28, 28, 30), 24)
LONG = Parameters(8192, (54, 54, 60), 40)


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(SHORT)


class Derived(seal.Ciphertext):  # type: ignore[misc]
    """A class of Python's own, whose instances need not lie in memory as SEAL's."""


@pytest.fixture(params=["ciphertext", "plaintext"])
def case(request: pytest.FixtureRequest, context: Context) -> tuple[View, Make]:
    """A view, and what makes something to look at whose residues are all one number."""
    if request.param == "ciphertext":
        full = np.ones((2, 4, 8192), dtype=np.uint64)
        return ResidueAccess(context).view, lambda n: load_residues(
            context, full * np.uint64(n), 3, 2.0**20
        )
    flat = np.ones((4, 8192), dtype=np.uint64)
    return PlaintextAccess(context).view, lambda n: load_plaintext(
        context, flat * np.uint64(n), 3, 2.0**20
    )


@pytest.mark.parametrize(
    "value", [None, object(), 7, np.zeros(100), seal.SecretKey(), Derived()], ids=lambda v: type(v)
)
def test_what_is_no_such_object_is_refused_before_memory_is_read(
    case: tuple[View, Make], value: Any
) -> None:
    view, _ = case
    with pytest.raises(LayoutError, match="a value of class"):
        view(value)
    # An object of SEAL that was never made has no address.
    for kind in (seal.Ciphertext, seal.Plaintext):
        with pytest.raises(LayoutError):
            view(kind.__new__(kind))


def test_a_ciphertext_is_no_plaintext_and_the_other_way_round(context: Context) -> None:
    ciphertext = load_residues(context, np.ones((2, 4, 8192), dtype=np.uint64), 3, 1.0)
    plaintext = load_plaintext(context, np.ones((4, 8192), dtype=np.uint64), 3, 1.0)
    with pytest.raises(LayoutError, match="no ciphertext"):
        ResidueAccess(context).view(plaintext)
    with pytest.raises(LayoutError, match="no plaintext"):
        PlaintextAccess(context).view(ciphertext)


def test_a_view_of_a_temporary_keeps_it_alive(case: tuple[View, Make]) -> None:
    view, make = case
    whole = view(make(1))
    part = view(make(2))[1, 5:]
    raw = view(make(3)).data.cast("B")
    gc.collect()
    # SEAL's pool hands freed memory out again at once.
    others = [make(n) for n in range(4, 10)]
    assert np.all(whole == 1)
    assert np.all(part == 2)
    assert np.all(np.frombuffer(raw, dtype=np.uint64) == 3)
    assert len(others) == 6


def test_a_view_can_never_be_written_to(case: tuple[View, Make]) -> None:
    view, make = case
    found = view(make(1))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        found.flags.writeable = True


def test_an_error_of_layout_is_one_of_ours() -> None:
    assert issubclass(LayoutError, ProgramError)


@pytest.mark.parametrize("shape", [(2, 4), (3, 2), (3, 1)])
def test_access_is_tested_for_every_shape(
    context: Context, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    real = ResidueAccess.view

    def wrong(self: ResidueAccess, value: Any) -> Residues:
        found = real(self, value)
        return np.roll(found, 1) if found.shape[:2] == shape else found

    monkeypatch.setattr(ResidueAccess, "view", wrong)
    with pytest.raises(LayoutError, match="do not come back"):
        ResidueAccess(context)


@pytest.mark.parametrize("primes", [1, 2, 4])
def test_access_to_plaintexts_is_tested_at_several_levels(
    context: Context, monkeypatch: pytest.MonkeyPatch, primes: int
) -> None:
    real = PlaintextAccess.view

    def wrong(self: PlaintextAccess, value: Any) -> Residues:
        found = real(self, value)
        return np.roll(found, 1) if len(found) == primes else found

    monkeypatch.setattr(PlaintextAccess, "view", wrong)
    with pytest.raises(LayoutError, match="do not come back"):
        PlaintextAccess(context)


@pytest.mark.parametrize("access", [ResidueAccess, PlaintextAccess])
def test_a_pointer_elsewhere_is_noticed(
    context: Context, monkeypatch: pytest.MonkeyPatch, access: type[MemoryAccess]
) -> None:
    monkeypatch.setattr(rawmemory, "INSTANCE_POINTER", 32)
    with pytest.raises(LayoutError):
        access(context)


def digits_of_the_self_test(
    parameters: Parameters, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Digits, int]]:
    context = Context(parameters)
    access = ResidueAccess(context)
    seen = []

    def product(weights: Any, prime: int, digits: Digits) -> Product:
        seen.append((digits, int(np.abs(weights).max()).bit_length()))
        return Product(weights, prime, digits)

    monkeypatch.setattr(families, "Product", product)
    families._self_test(context, access)
    return seen


@pytest.mark.parametrize("parameters", [SHORT, LONG], ids=["28 bits", "54 bits"])
def test_products_are_tested_with_several_digits_on_both_sides(
    parameters: Parameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = digits_of_the_self_test(parameters, monkeypatch)
    assert max(bits for _, bits in seen) == 45
    assert {min(d.weight_count, 2) for d, _ in seen} == {1, 2}
    assert any(d.weight_count > 1 and d.residue_count > 1 for d, _ in seen)


@pytest.mark.parametrize("side", ["weight_count", "residue_count"])
def test_products_that_go_wrong_with_several_digits_only_are_noticed(
    context: Context, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    real = Product.__call__

    def wrong(self: Product, cut: Any) -> Residues:
        found = real(self, cut)
        return np.roll(found, 1) if getattr(self._digits, side) > 1 else found

    access = ResidueAccess(context)
    families._self_test(context, access)
    monkeypatch.setattr(Product, "__call__", wrong)
    with pytest.raises(LayoutError, match="other residues than matrix products"):
        families._self_test(context, access)


def test_a_self_test_that_cannot_run_is_no_access(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "choose_digits", lambda *_: None)
    with pytest.raises(LayoutError, match="the self-test cannot run"):
        families._self_test(context, ResidueAccess(context))
