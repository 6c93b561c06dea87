"""server/program.py of a compiled bundle, run where only numpy and TenSEAL can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from hecompile.access.signing import SigningKey
from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.ir import he_ops as he
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import SecretKey, secret_key
from hecompile.runtime.packing import unpack
from tests.encrypted.compiled_models import (
    Arrays,
    answers,
    compile_tiny,
    run_encrypted,
    samples,
    small_lstm,
    two_in_two_out,
    worst,
)
from tests.encrypted.runtime_parties import Parties, make_parties

# Runs program.py as its own __main__ would, with a key holder beside it where there are refreshes.
DRIVER = """
import importlib.abc, json, pathlib, runpy, sys
import numpy, tenseal.sealapi as seal

folder, banned, facts = pathlib.Path(sys.argv[1]), *map(json.loads, sys.argv[2:])

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in banned:
            raise ImportError(f"{name} must not be imported")

sys.meta_path.insert(0, Refuse())
program = folder / "bundle" / "server" / "program.py"
if facts is None:
    sys.argv = [str(program), *(str(folder / part) for part in ("keys/evaluation", "in", "out"))]
    runpy.run_path(str(program), run_name="__main__")
    sys.exit()

module = runpy.run_path(str(program))
constants = module["read_constants"](program.parent / "constants.npz")
machine = module["Machine"](
    module["DEGREE"], module["PRIME_BITS"], constants, folder / "keys" / "evaluation"
)
key = seal.SecretKey()
key.load(machine.context, str(folder / "keys" / "secret" / "secret.key"))
decryptor, encryptor = seal.Decryptor(machine.context, key), seal.Encryptor(machine.context, key)

def ask(group, ciphertexts):
    fresh = []
    for value, (period, level, scale) in zip(ciphertexts, facts[str(group)], strict=True):
        plain = seal.Plaintext()
        decryptor.decrypt(value, plain)
        slots = numpy.array(machine.encoder.decode_double(plain)).reshape(-1, period).mean(axis=0)
        again = seal.Ciphertext()
        encryptor.encrypt_symmetric(machine.encode_values(slots, level, scale), again)
        fresh.append(again)
    return fresh

inputs = {name: machine.load(folder / "in" / f"{name}.ct") for name in module["INPUTS"]}
(folder / "out").mkdir()
for number, parts in enumerate(module["compute"](machine, inputs, ask).values()):
    for part, ciphertext in enumerate(parts):
        ciphertext.save(str(folder / "out" / f"output{number}-{part}.ct"))
"""
BANNED = ["hecompile", "onnx", "onnxruntime", "torch", "networkx", "cryptography", "click",
          "securesystemslib", "scipy"]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A bundle, its keys and one encrypted sample on the disk."""

    folder: Path
    compiled: Compiled
    parties: Parties

    def run(self, refreshes: Mapping[str, object] | None) -> subprocess.CompletedProcess[str]:
        words = [str(self.folder), json.dumps(BANNED), json.dumps(refreshes)]
        return subprocess.run(
            [sys.executable, "-I", "-c", DRIVER, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            cwd=self.folder,
        )

    def outputs(self) -> Arrays:
        """Decrypt what program.py wrote."""
        secret = secret_key(self.parties.ring.source(Role.SECRET))
        found = {}
        for number, entry in enumerate(self.compiled.spec.outputs):
            parts = []
            for part, cipher in enumerate(entry.ciphertexts):
                slots = decrypt(secret, self.folder / "out" / f"output{number}-{part}.ct")
                assert cipher.layout is not None
                period = slots.reshape(-1, cipher.period).mean(axis=0)
                parts.append(unpack(period, cipher.layout, self.compiled.spec.batch))
            found[entry.label] = np.concatenate(parts, axis=-1).reshape(-1, *entry.dims[1:])
        return found


def decrypt(secret: SecretKey, path: Path) -> np.ndarray:
    ciphertext, plain = seal.Ciphertext(), seal.Plaintext()
    ciphertext.load(secret.context.seal, str(path))
    seal.Decryptor(secret.context.seal, secret.key).decrypt(ciphertext, plain)
    return np.asarray(secret.context.decode(plain))


def prepare(folder: Path, compiled: Compiled, inputs: Arrays) -> Place:
    compiled.save(folder / "bundle", signing_key=SigningKey.generate())
    parties = make_parties(compiled.program, spec=compiled.spec)
    parties.ring.save(folder / "keys", [Role.EVALUATION, Role.SECRET])
    evaluation = parties.evaluator.start(parties.client.encrypt(inputs)[0])
    (folder / "in").mkdir()
    for name, value in evaluation._live.items():
        value.save(str(folder / "in" / f"{name}.ct"))
    return Place(folder, compiled, parties)


def test_without_refreshes_it_runs_from_files_to_files(tmp_path: Path) -> None:
    model = two_in_two_out()
    compiled = compile_tiny(model, options=CompileOptions(batch=2))
    inputs = samples(model, 2)
    place = prepare(tmp_path, compiled, inputs)
    done = place.run(None)
    assert done.returncode == 0, done.stderr
    found = place.outputs()
    evaluated = run_encrypted(place.parties, inputs).raw
    assert worst(found, evaluated) <= 2 * compiled.report.noise_error
    assert worst(found, answers(model, inputs)) <= compiled.predicted_error


def test_refreshes_ask_the_key_holder(tmp_path: Path) -> None:
    model = small_lstm(steps=2)
    compiled = compile_tiny(model, options=CompileOptions(refresh="client", ring=8192))
    inputs = samples(model, 1)
    place = prepare(tmp_path, compiled, inputs)
    assert compiled.report.estimate.refreshes > 0
    alone = place.run(None)
    assert alone.returncode != 0
    assert "needs the key holder" in alone.stderr
    rounds: dict[str, Any] = {}
    for op in compiled.program.select(he.Refresh):
        facts = he.cipher_type(op.defined)
        rounds.setdefault(str(op.group), []).append((facts.period, facts.level, facts.scale))
    (tmp_path / "out").rmdir()
    done = place.run(rounds)
    assert done.returncode == 0, done.stderr
    found = place.outputs()
    evaluated = run_encrypted(place.parties, inputs).raw
    assert worst(found, evaluated) <= 2 * compiled.report.noise_error
    assert worst(found, answers(model, inputs)) <= compiled.predicted_error


@pytest.mark.parametrize("name", BANNED[:3])
def test_the_driver_refuses_other_packages(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path, None, None)  # type: ignore[arg-type]
    server = tmp_path / "bundle" / "server"
    server.mkdir(parents=True)
    (server / "program.py").write_text(f"import {name}\n")
    done = place.run(None)
    assert f"{name} must not be imported" in done.stderr
