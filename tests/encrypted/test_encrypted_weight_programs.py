"""Encrypted weights in programs with refreshes, in noise predictions and in program.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from hecompile.access.signing import SigningKey
from hecompile.interpret.noisy import run_program_noisy
from hecompile.interpret.slots import run_program_slots, trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Program
from hecompile.ir.public import public_form, weight_arrays
from hecompile.ir.types import Layout
from hecompile.numeric.parameters import Parameters
from hecompile.precision import predict_noise
from hecompile.runtime.client import Client
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import evaluation_keys, generate_keys, public_key, secret_key
from hecompile.runtime.model_weights import ModelOwner, model_contract
from hecompile.runtime.packing import unpack
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.spec import spec_from_program
from tests.encrypted.compiled_models import answers, samples, worst
from tests.encrypted.runtime_parties import opened
from tests.encrypted.runtime_programs import Writer
from tests.encrypted.test_encrypted_weights import MODEL, compiled_with


def refreshing() -> Program:
    """y = w x refreshed, plus v x: a weight is alive and a sum is open while the key holder works.

    The products with v and u are summed with three polynomials before their relinearization.
    """
    write = Writer(Parameters(8192, (36, 30, 30, 30, 46), 30), "refreshing")

    def weight(source: str, values: list[float], level: int) -> Value:
        symbol = write.builder.constant(np.array(values), source)
        op = he.Weight(source=source, period=len(values), value=symbol)
        return write.emit(op, level, write.parameters.scale(level))

    def settled(product: Value, **facts: Any) -> Value:
        return write.rescale(write.same(he.Relinearize(x=product), polynomials=2), **facts)

    layout = Layout(0, 4)
    x = write.input("x", 4, 4, 2)
    v, u = weight("v", [0.5, -0.25, 1.5, 2.0], 2), weight("u", [3.0], 2)
    w = weight("w", [1.25, 0.75, -0.5, 0.0], 2)
    low = settled(write.mul(x, w))
    fresh = write.emit(
        he.Refresh(xs=(low,), mask_bits=10, group=0), 2, write.parameters.scale(2), bound=4.0,
        layout=layout,
    )  # fmt: skip
    products = [write.mul(fresh, v), write.mul(x, v), write.mul(fresh, u), write.mul(x, u)]
    total = products[0]
    for product in products[1:]:
        total = write.same(he.Add(x=total, y=product), polynomials=3)
    y = settled(total, layout=layout)
    write.output([y], "y", 4)
    return write.finish()


def test_weights_last_over_refreshes_and_saved_evaluations() -> None:
    full = refreshing()
    program = public_form(full)
    spec = spec_from_program(program)
    ring = generate_keys(spec.parameters, (), spec.program)
    public = public_key(ring.source(Role.PUBLIC))
    model = ModelOwner(program, weight_arrays(full), public).encrypt()
    keys = evaluation_keys(ring.source(Role.EVALUATION))
    custodian = Custodian(spec, secret_key(ring.source(Role.SECRET)))
    x = np.array([[1.0, -0.5, 0.25, 2.0]])
    v, u = np.array([0.5, -0.25, 1.5, 2.0]), 3.0
    expected = (x * [1.25, 0.75, -0.5, 0.0] + x) * (v + u)
    data = Client(spec, public).encrypt({"x": x})[0]
    evaluation = Evaluator(program, keys, model=model).start(data)
    request = evaluation.advance()
    assert request is not None
    state, response = evaluation.checkpoint(), custodian.refresh(request)
    for running in (evaluation, Evaluator(program, keys, model=model).resume(state)):
        running.accept(response)
        assert running.advance() is None
        assert np.abs(custodian.decrypt(running.output()).raw["y"] - expected).max() < 1e-4


def test_the_noise_of_weights_is_predicted_and_simulated() -> None:
    program = compiled_with().program
    inputs = {"x": samples(MODEL, 200, seed=13)["x"][:, None]}
    exact = run_program_slots(program, inputs)["d1"]
    noisy = run_program_noisy(program, inputs, seed=3)["d1"]
    (predicted,) = predict_noise(program, trace_slots(program, inputs))
    largest = float(np.abs(noisy - exact).max())
    assert largest <= predicted.bound <= 16 * largest


def test_program_py_takes_weights_as_files(tmp_path: Path) -> None:
    """What an auditor runs instead of the evaluator: no hecompile, ciphertexts as files."""
    compiled = compiled_with()
    program, spec = public_form(compiled.program), compiled.spec
    compiled.save(tmp_path / "bundle", signing_key=SigningKey.generate())
    ring = generate_keys(spec.parameters, galois_steps(program), spec.program)
    ring.save(tmp_path / "keys", [Role.EVALUATION])
    public, secret = public_key(ring.source(Role.PUBLIC)), secret_key(ring.source(Role.SECRET))
    x = samples(MODEL, 1, seed=17)
    data = Client(spec, public).encrypt(x)[0]
    model = ModelOwner(program, weight_arrays(compiled.program), public).encrypt()
    (tmp_path / "in").mkdir()
    for blob, contract in ((data, spec.input_ciphertexts), (model, model_contract(program))):
        parts = opened(blob, contract, spec.parameters).ciphertexts
        for cipher, part in zip(contract, parts, strict=True):
            value = ciphertext_from_bytes(
                public.context, part, cipher.level, cipher.scale, what=cipher.name
            )
            value.save(str(tmp_path / "in" / f"{cipher.name}.ct"))
    script = tmp_path / "bundle" / "server" / "program.py"
    folders = [str(tmp_path / name) for name in ("keys/evaluation", "in", "out")]
    command = [sys.executable, "-I", str(script), *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "out").iterdir()
    value, plain = seal.Ciphertext(), seal.Plaintext()
    value.load(secret.context.seal, str(written))
    seal.Decryptor(secret.context.seal, secret.key).decrypt(value, plain)
    (cipher,) = spec.output_ciphertexts
    assert cipher.layout is not None
    slots = secret.context.decode(plain).reshape(-1, cipher.period).mean(axis=0)
    raw = {"d1": unpack(slots[None], cipher.layout, 1).reshape(1, -1)}
    assert worst(raw, answers(MODEL, x)) <= compiled.predicted_error
