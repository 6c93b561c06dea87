"""Encoded weights on disk: equal results, and nothing used that is not what was written."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hecompile.errors import InputError, IntegrityError, ProgramError
from hecompile.runtime import rawmemory
from hecompile.runtime.context import Context
from hecompile.runtime.evaluator import Evaluator
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import evaluation_keys
from hecompile.runtime.plaintexts import PlaintextAccess, load_plaintext
from hecompile.runtime.residues import LayoutError
from hecompile.runtime.weight_cache import WeightCache
from tests.encrypted.runtime_parties import Parties, make_parties, opened
from tests.encrypted.runtime_programs import MEDIUM, SMALL, matrix_program

RANDOM = np.random.default_rng(0)
PROGRAM = matrix_program(RANDOM.normal(size=(8, 8)), RANDOM.normal(size=8))


@pytest.fixture(scope="module")
def parties() -> Parties:
    return make_parties(PROGRAM)


def evaluator(parties: Parties, folder: Path, **options: Any) -> Evaluator:
    keys = evaluation_keys(parties.ring.source(Role.EVALUATION))
    return Evaluator(PROGRAM, keys, weights_cache=folder, **options)


def outputs(parties: Parties, found: Evaluator, data: bytes) -> tuple[bytes, ...]:
    evaluation = found.start(data)
    assert evaluation.advance() is None
    output = evaluation.output()
    spec = parties.spec
    return opened(output, spec.output_ciphertexts, spec.parameters).ciphertexts


def test_weights_come_back_as_they_were_encoded(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    data = parties.client.encrypt({"x": np.arange(8.0)[None]})[0]
    wanted = outputs(parties, parties.evaluator, data)
    assert outputs(parties, evaluator(parties, folder), data) == wanted
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = file.stat().st_mtime_ns
    monkeypatch.setattr(Context, "encode", None)
    again = evaluator(parties, folder)
    assert again.weights == parties.evaluator.weights
    assert outputs(parties, again, data) == wanted
    assert file.stat().st_mtime_ns == before


def test_what_a_cache_lacks_is_encoded_and_added(parties: Parties, tmp_path: Path) -> None:
    size = SMALL.ciphertext_bytes(1, 1)
    few = evaluator(parties, tmp_path, memory_limit=2 * size)
    assert few.weights.stored == 2
    (file,) = tmp_path.iterdir()
    short = file.stat().st_size
    assert evaluator(parties, tmp_path).weights.stored == parties.evaluator.weights.stored
    assert list(tmp_path.iterdir()) == [file]
    whole = file.stat().st_size
    assert whole > short
    evaluator(parties, tmp_path, memory_limit=2 * size)
    assert file.stat().st_size == whole


@pytest.mark.parametrize("place", [0, 4, 6, 20, 60, 100, -1])
def test_a_changed_byte_is_told(parties: Parties, tmp_path: Path, place: int) -> None:
    evaluator(parties, tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"{file.name} is no cache .* remove the file"):
        evaluator(parties, tmp_path)


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"x", lambda _: b""]
)
def test_another_length_is_told(parties: Parties, tmp_path: Path, change: Any) -> None:
    evaluator(parties, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(IntegrityError, match="remove the file"):
        evaluator(parties, tmp_path)


def test_a_file_of_another_program_is_not_used(parties: Parties, tmp_path: Path) -> None:
    evaluator(parties, tmp_path)
    (file,) = tmp_path.iterdir()
    for context in (parties.evaluator.context, Context(MEDIUM)):
        other = WeightCache(tmp_path, "0" * 64, context).path
        assert other != file
        other.write_bytes(file.read_bytes())
        other.chmod(0o600)
        with pytest.raises(IntegrityError, match="for another program"):
            WeightCache(tmp_path, "0" * 64, context)


def test_a_file_that_others_may_change_is_refused(parties: Parties, tmp_path: Path) -> None:
    evaluator(parties, tmp_path)
    (file,) = tmp_path.iterdir()
    file.chmod(0o660)
    with pytest.raises(IntegrityError, match="other users may write"):
        evaluator(parties, tmp_path)
    link = tmp_path / "elsewhere"
    file.rename(link)
    file.symlink_to(link)
    with pytest.raises(InputError, match="cannot read"):
        evaluator(parties, tmp_path)


def test_residues_beyond_their_prime_are_refused_even_with_a_right_digest(
    parties: Parties, tmp_path: Path
) -> None:
    context = parties.evaluator.context
    cache = WeightCache(tmp_path, "1" * 64, context)
    key = (b"k" * 20, 1, 4.0)
    plain = context.encode(np.arange(8.0), 1, 4.0)
    cache.write({key: plain})
    data = bytearray(cache.path.read_bytes())
    cache = WeightCache(tmp_path, "1" * 64, context)
    place, _ = cache._places[key]
    data[place : place + 5] = b"\xff" * 5
    digest = hashlib.sha256(data[place:]).digest()
    cache._places[key] = place, digest
    cache.path.write_bytes(data)
    with pytest.raises(IntegrityError, match="SEAL does not take residues"):
        cache.load(key)
    cache.close()


def test_plaintexts_are_read_exactly() -> None:
    context = Context(MEDIUM)
    access = PlaintextAccess(context)
    for level in range(4):
        plain = context.encode(np.arange(16.0), level, 2.0**20)
        view = access.view(plain)
        assert view.shape == (level + 1, 8192)
        again = load_plaintext(context, view, level, 2.0**20)
        assert again.scale == plain.scale
        assert np.array_equal(access.view(again), view)
    residues = access.view(plain).copy()
    residues[1, 5] = MEDIUM.data_primes[1]
    with pytest.raises(ProgramError, match="SEAL does not take"):
        load_plaintext(context, residues, 3, 2.0**20)


def test_a_library_with_other_objects_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(rawmemory, "INSTANCE_POINTER", 32)
        with pytest.raises(LayoutError):
            PlaintextAccess(context)
        cache = WeightCache(tmp_path, "1" * 64, context)
        with pytest.raises(InputError, match="leave the weights' cache out"):
            cache.write({})
