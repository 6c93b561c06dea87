"""Sparse matrices against numpy's dense ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.numeric import sparse
from hecompile.numeric.sparse import SparseMatrix


def random_matrix(rng: np.random.Generator, rows: int, columns: int, density: float) -> np.ndarray:
    matrix = rng.standard_normal((rows, columns))
    matrix[rng.random((rows, columns)) > density] = 0.0
    return matrix


def assert_canonical(matrix: SparseMatrix) -> None:
    key = matrix.rows * matrix.shape[1] + matrix.columns
    assert np.all(np.diff(key) > 0)
    assert np.all(matrix.values != 0.0)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    extents=st.tuples(*[st.integers(0, 9)] * 3),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_product_is_the_dense_product(
    seed: int, extents: tuple[int, int, int], density: float
) -> None:
    rng = np.random.default_rng(seed)
    m, k, n = extents
    a, b = random_matrix(rng, m, k, density), random_matrix(rng, k, n, density)
    product = SparseMatrix.from_dense(a) @ SparseMatrix.from_dense(b)
    assert_canonical(product)
    np.testing.assert_allclose(product.dense(), a @ b, rtol=0, atol=1e-12)


def test_product_is_the_same_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a = SparseMatrix.from_dense(random_matrix(rng, 40, 30, 0.3))
    b = SparseMatrix.from_dense(random_matrix(rng, 30, 50, 0.3))
    whole = a @ b
    monkeypatch.setattr(sparse, "_BLOCK", 17)
    parts = a @ b
    assert_canonical(parts)
    np.testing.assert_array_equal(parts.dense(), whole.dense())


def test_product_of_dense_matrices_takes_the_dense_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20, 60)), rng.standard_normal((60, 20))
    monkeypatch.setattr(SparseMatrix, "_block", None)
    product = SparseMatrix.from_dense(a) @ SparseMatrix.from_dense(b)
    np.testing.assert_allclose(product.dense(), a @ b, atol=1e-12)


def test_entries_at_one_position_add_up_and_exact_zeros_go() -> None:
    rows, columns = np.array([1, 0, 1, 0]), np.array([2, 0, 2, 1])
    matrix = SparseMatrix.from_entries(rows, columns, np.array([2.0, 5.0, -2.0, 0.0]), (2, 3))
    assert matrix.entries == 1
    np.testing.assert_array_equal(matrix.dense(), [[5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_sum_cancels() -> None:
    matrix = SparseMatrix.identity(3)
    negative = SparseMatrix(matrix.rows, matrix.columns, -matrix.values, matrix.shape)
    assert (matrix + negative).entries == 0


def test_selection_takes_inputs_and_zeros() -> None:
    matrix = SparseMatrix.selection(np.array([2, -1, 0, 2]), 3)
    np.testing.assert_array_equal(matrix.apply(np.array([1.0, 2.0, 4.0])), [4.0, 0.0, 1.0, 4.0])


def test_work_counts_products() -> None:
    a, b = np.ones((2, 3)), np.ones((3, 5))
    assert SparseMatrix.from_dense(a).work(SparseMatrix.from_dense(b)) == 30


def test_wrong_shapes_are_refused() -> None:
    small, large = SparseMatrix.identity(2), SparseMatrix.identity(3)
    with pytest.raises(ValueError, match="cannot multiply"):
        small @ large
    with pytest.raises(ValueError, match="cannot add"):
        small + large
    with pytest.raises(ValueError, match="outside"):
        SparseMatrix.from_entries(np.array([2]), np.array([0]), np.array([1.0]), (2, 2))
