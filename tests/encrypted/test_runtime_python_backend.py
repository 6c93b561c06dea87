"""The generated server/program.py, run by itself and compared with the evaluator."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from hecompile.backends import find_backend
from hecompile.backends.tenseal_python import emit_python
from hecompile.errors import ProgramError, UsageError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import secret_key
from hecompile.runtime.rounds import KeyHolder
from tests.encrypted.relayout_rounds import gathered, random_gather, round_program
from tests.encrypted.runtime_parties import Parties, make_parties
from tests.encrypted.runtime_programs import (
    matrix_program,
    polynomial_program,
    refresh_program,
    survivor_program,
)

RNG = np.random.default_rng(3)


class Files:
    """A program's files and input ciphertexts on the disk, and the secret key to compare."""

    def __init__(self, parties: Parties, folder: Path, xs: dict[str, np.ndarray]) -> None:
        self.parties = parties
        self.folder = folder
        self.secret = secret_key(parties.ring.source(Role.SECRET))
        (folder / "program.py").write_text(emit_python(parties.program), encoding="utf-8")
        arrays: dict[str, Any] = {s: c.array for s, c in parties.program.constants.items()}
        np.savez_compressed(folder / "constants.npz", **arrays)
        parties.ring.save(folder / "keys", [Role.EVALUATION])
        evaluation = parties.evaluator.start(parties.client.encrypt(xs)[0])
        (folder / "inputs").mkdir()
        for name, value in evaluation._live.items():
            value.save(str(folder / "inputs" / f"{name}.ct"))

    def decrypt(self, ciphertext: Any) -> np.ndarray:
        plain = seal.Plaintext()
        context = self.secret.context
        seal.Decryptor(context.seal, self.secret.key).decrypt(ciphertext, plain)
        return context.decode(plain)

    def output(self) -> np.ndarray:
        ciphertext = seal.Ciphertext()
        path = self.folder / "outputs" / "output0-0.ct"
        ciphertext.load(self.secret.context.seal, str(path))
        return self.decrypt(ciphertext)


def run_alone(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run program.py where the package hecompile cannot be imported."""
    code = (
        "import runpy, sys; sys.modules['hecompile'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    folders = [str(folder / name) for name in ("keys/evaluation", "inputs", "outputs")]
    command = [sys.executable, "-c", code, str(folder / "program.py"), *folders]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("kind", ["matrix", "zeros", "polynomial"])
def test_it_computes_what_the_evaluator_computes(tmp_path: Path, kind: str) -> None:
    program = {
        "matrix": lambda: matrix_program(RNG.standard_normal((4, 4)), RNG.standard_normal(4)),
        "zeros": lambda: matrix_program(np.zeros((4, 4)), RNG.standard_normal(4)),
        "polynomial": lambda: polynomial_program(RNG.standard_normal(4), batch=1),
    }[kind]()
    parties = make_parties(program)
    x = RNG.uniform(-1, 1, (1, 4))
    files = Files(parties, tmp_path, {"x": x})
    done = run_alone(tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.abs(files.output()[:4] - parties.raw(x)[0]).max() < 1e-4


@pytest.mark.parametrize("program", [refresh_program(), survivor_program()])
def test_a_refresh_asks_the_key_holder(tmp_path: Path, program: Program) -> None:
    parties = make_parties(program)
    x = RNG.uniform(-1, 1, (1, 4))
    files = Files(parties, tmp_path, {"x": x})
    alone = run_alone(tmp_path)
    assert alone.returncode != 0
    assert "needs the key holder" in alone.stderr

    holder = KeyHolder(files.secret.context, files.secret.key)
    seen: list[np.ndarray] = []

    def ask(group: int, ciphertexts: list[Any]) -> Sequence[Any]:
        seen.extend(files.decrypt(value) for value in ciphertexts)
        return holder.answer(parties.spec.refresh(group), ciphertexts)

    module = load(tmp_path / "program.py")
    constants = module.read_constants(tmp_path / "constants.npz")
    keys = tmp_path / "keys" / "evaluation"
    machine = module.Machine(module.DEGREE, module.PRIME_BITS, constants, keys)
    names = module.INPUTS
    inputs = {name: machine.load(tmp_path / "inputs" / f"{name}.ct") for name in names}
    result = files.decrypt(module.compute(machine, inputs, ask)["y"][0])
    assert np.abs(result[:4] - parties.raw(x)[0]).max() < 1e-7
    assert np.abs(np.concatenate(seen)).max() > 1000


def test_slots_are_gathered_under_masks_of_40_bits(tmp_path: Path) -> None:
    periods = (4, 4)
    tables = [random_gather(RNG, periods, period) for period in (8, 4)]
    parties = make_parties(round_program(periods, tables))
    xs = {f"x{n}": RNG.uniform(-1, 1, (1, 4)) for n in range(2)}
    files = Files(parties, tmp_path, xs)
    module = load(tmp_path / "program.py")
    constants = module.read_constants(tmp_path / "constants.npz")
    keys = tmp_path / "keys" / "evaluation"
    machine = module.Machine(module.DEGREE, module.PRIME_BITS, constants, keys)
    inputs = {n: machine.load(tmp_path / "inputs" / f"{n}.ct") for n in module.INPUTS}
    holder = KeyHolder(files.secret.context, files.secret.key)

    def ask(group: int, ciphertexts: list[Any]) -> Sequence[Any]:
        return holder.answer(parties.spec.refresh(group), ciphertexts)

    found = module.compute(machine, inputs, ask)
    rows = [x[0] for x in xs.values()]
    for number, table in enumerate(tables):
        slots = files.decrypt(found[f"y{number}"][0])[: table.shape[1]]
        assert np.abs(slots - gathered(table, rows)).max() < 3e-6


def test_parts_of_the_support_do_not_hide_one_another() -> None:
    tree = ast.parse(emit_python(refresh_program()))
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [node.name for node in tree.body if isinstance(node, kinds)]
    names += [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert len(names) == len(set(names))
    assert "refresh" in names
    assert "refresh" not in emit_python(matrix_program(np.eye(2), np.ones(2))).split()


def load(path: Path) -> Any:
    found = importlib.util.spec_from_file_location("generated_program", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_one_statement_an_operation() -> None:
    program = matrix_program(RNG.standard_normal((16, 16)), np.ones(16))
    text = emit_python(program)
    tree = ast.parse(text)
    compute = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "compute")
    assigned = [node for node in compute.body if isinstance(node, ast.Assign)]
    assert len(assigned) == len(program.operations) - len(program.select(he.Output))
    assert max(map(len, text.splitlines())) <= 100
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == {"sys", "numpy", "tenseal"}


def test_names_that_python_cannot_have_are_changed() -> None:
    program = matrix_program(np.eye(2), np.ones(2))
    text = emit_python(program.replace(name='a"""\nimport os'))
    ast.parse(text)
    assert text.startswith('"""a____import os: a program')
    assert "    input_2 = inputs['input']" in text


def test_backends_are_found_by_name() -> None:
    files = find_backend("tenseal").emit(matrix_program(np.eye(2), np.ones(2)))
    assert set(files) == {"server/program.hir", "server/program.py"}
    with pytest.raises(UsageError, match="no backend 'magic'; use one of tenseal"):
        find_backend("magic")


def test_unfinished_programs_are_refused() -> None:
    program = matrix_program(np.eye(2), np.ones(2)).replace(parameters=None)
    with pytest.raises(ProgramError, match="no encryption parameters"):
        emit_python(program)
