"""Packing of samples into slots and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecompile.errors import InputError
from hecompile.ir.types import Layout
from hecompile.runtime.packing import gather, pack, unpack


def test_pack_as_the_layout_says() -> None:
    samples = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    layout = Layout(first=1, count=2, stride=2, offset=3)
    np.testing.assert_array_equal(pack(samples, layout, 8), [0, 0, 0, 2, 20, 3, 30, 0])


def test_lanes_beyond_the_batch_are_zero() -> None:
    slots = pack(np.ones((3, 2)), Layout(0, 2, stride=4), 8)
    np.testing.assert_array_equal(slots, [1, 1, 1, 0, 1, 1, 1, 0])


@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    stride = 1 << data.draw(st.integers(0, 3))
    batch = data.draw(st.integers(1, stride))
    count, first = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 3))
    layout = Layout(first, count, stride, offset=data.draw(st.integers(0, 5)))
    period = 1 << (layout.end - 1).bit_length()
    shape = (*data.draw(st.lists(st.integers(1, 3), max_size=2)), batch, first + count + 1)
    samples = np.random.default_rng(0).normal(size=shape)
    slots = pack(samples, layout, period)
    assert slots.shape == (*shape[:-2], period)
    assert np.count_nonzero(slots) == slots.size // period * batch * count
    back = unpack(slots, layout, batch)
    np.testing.assert_array_equal(back, samples[..., first : first + count])
    longer = np.concatenate([slots, slots], axis=-1)
    np.testing.assert_array_equal(unpack(longer, layout, batch), back)


def test_gather_as_the_list_says() -> None:
    samples = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [100.0, 200.0, 300.0]])
    found = gather(samples, (2, -1, 0, 2), 4)
    expected = [3, 30, 300, 0, 0, 0, 0, 0, 1, 10, 100, 0, 3, 30, 300, 0]
    np.testing.assert_array_equal(found, expected)
    runs = np.stack([samples, 2 * samples])
    np.testing.assert_array_equal(gather(runs, (2, -1, 0, 2), 4)[1], 2 * found)


@pytest.mark.parametrize(("batch", "stride"), [(1, 1), (3, 4)])
def test_to_gather_in_order_is_to_pack(batch: int, stride: int) -> None:
    samples = np.random.default_rng(0).normal(size=(2, batch, 5))
    packed = pack(samples, Layout(1, 3, stride), 4 * stride)
    np.testing.assert_array_equal(gather(samples, (1, 2, 3, -1), stride), packed)


def test_what_cannot_be_gathered_is_refused() -> None:
    with pytest.raises(InputError, match="needs more elements than the 3 of the tensor"):
        gather(np.ones((1, 3)), (0, 3), 1)
    with pytest.raises(InputError, match="3 packed samples do not fit a layout whose stride is 2"):
        gather(np.ones((3, 3)), (0, 1), 2)


def test_what_does_not_fit_is_refused() -> None:
    layout = Layout(first=2, count=2, stride=2)
    with pytest.raises(InputError, match="needs more elements than the 3 of the tensor"):
        pack(np.ones((1, 3)), layout, 8)
    with pytest.raises(InputError, match="3 packed samples do not fit a layout whose stride is 2"):
        pack(np.ones((3, 4)), layout, 8)
    with pytest.raises(InputError, match="does not fit a period of 2 slots"):
        pack(np.ones((1, 4)), layout, 2)
    with pytest.raises(InputError, match="does not fit into 3 slots"):
        unpack(np.ones(3), layout, 1)
    with pytest.raises(InputError, match="0 packed samples"):
        unpack(np.ones(8), layout, 0)
