"""server/program.py of a compiled bundle, run where only numpy and TenSEAL can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as seal

from hecompile.access.signing import SigningKey
from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import SecretKey, secret_key
from hecompile.runtime.packing import unpack
from hecompile.runtime.rounds import KeyHolder
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

folder, banned, holder = pathlib.Path(sys.argv[1]), *map(json.loads, sys.argv[2:])

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in banned:
            raise ImportError(f"{name} must not be imported")

sys.meta_path.insert(0, Refuse())
program = folder / "bundle" / "server" / "program.py"
if not holder:
    sys.argv = [str(program), *(str(folder / part) for part in ("keys/evaluation", "in", "out"))]
    runpy.run_path(str(program), run_name="__main__")
    sys.exit()

module = runpy.run_path(str(program))
constants = module["read_constants"](program.parent / "constants.npz")
machine = module["Machine"](
    module["DEGREE"], module["PRIME_BITS"], constants, folder / "keys" / "evaluation"
)

def ask(group, ciphertexts):
    for number, value in enumerate(ciphertexts):
        value.save(str(folder / f"up-{number}.ct"))
    print(group, len(ciphertexts), flush=True)
    fresh = int(sys.stdin.readline())
    return [machine.load(folder / f"down-{number}.ct") for number in range(fresh)]

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

    def run(self, holder: bool) -> subprocess.CompletedProcess[str]:
        """Run it with a key holder here, who is asked over its output and input, or without."""
        words = [str(self.folder), json.dumps(BANNED), json.dumps(holder)]
        with subprocess.Popen(
            [sys.executable, "-I", "-c", DRIVER, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            lines = []
            for line in process.stdout if holder else ():
                lines.append(line)
                process.stdin.write(f"{self.answer(*map(int, line.split()))}\n")
                process.stdin.flush()
            out, errors = process.communicate(timeout=200)
        return subprocess.CompletedProcess([], process.returncode, "".join(lines) + out, errors)

    def answer(self, group: int, count: int) -> int:
        """Answer a request that lies in files; return how many ciphertexts went back."""
        secret = secret_key(self.parties.ring.source(Role.SECRET))
        values = []
        for number in range(count):
            values.append(seal.Ciphertext())
            values[-1].load(secret.context.seal, str(self.folder / f"up-{number}.ct"))
        round_ = self.compiled.spec.refresh(group)
        fresh = KeyHolder(secret.context, secret.key).answer(round_, values)
        for number, value in enumerate(fresh):
            value.save(str(self.folder / f"down-{number}.ct"))
        return len(fresh)

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
    done = place.run(holder=False)
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
    alone = place.run(holder=False)
    assert alone.returncode != 0
    assert "needs the key holder" in alone.stderr
    (tmp_path / "out").rmdir()
    done = place.run(holder=True)
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
    done = place.run(holder=False)
    assert f"{name} must not be imported" in done.stderr
