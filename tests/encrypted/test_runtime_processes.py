"""The evaluator in a process of its own."""

from __future__ import annotations

import io
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hecompile.errors import HecompileError, InputError, IntegrityError
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.runtime.client import Client
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.keys import load_public_key, load_secret_key, write_keys
from hecompile.runtime.processes import EvaluatorProcess, Tasks
from hecompile.runtime.run import PHASES, Server, run_parties
from hecompile.runtime.spec import ClientSpec, spec_from_program
from tests.encrypted.runtime_programs import matrix_program, refresh_program


def server_of(program: Program) -> Server:
    buffer = io.BytesIO()
    arrays = {symbol: constant.array for symbol, constant in program.constants.items()}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return Server(print_program(program).encode(), buffer.getvalue())


@dataclass(frozen=True)
class Case:
    server: Server
    spec: ClientSpec
    keys: Path

    def process(self, timeout: float | None = 60.0, **more: Any) -> EvaluatorProcess:
        return EvaluatorProcess(
            self.server.program,
            self.server.constants,
            self.spec,
            self.keys / "evaluation",
            timeout=timeout,
            **more,
        )

    def envelope(self) -> bytes:
        key = load_public_key(self.keys, self.spec.parameters, self.spec.program)
        return Client(self.spec, key).encrypt({"x": np.ones((1, 4))})[0]

    def custodian(self) -> Custodian:
        key = load_secret_key(self.keys, self.spec.parameters, self.spec.program)
        return Custodian(self.spec, key)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    program = refresh_program()
    spec = spec_from_program(program)
    folder = tmp_path_factory.mktemp("process")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HECOMPILE_HOME", str(folder / "home"))
        write_keys(folder / "keys", spec.parameters, (), spec.program)
    return Case(server_of(program), spec, folder / "keys")


@pytest.fixture(autouse=True)
def home_of_the_keys(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret key at rest opens where it was made."""
    monkeypatch.setenv("HECOMPILE_HOME", str(case.keys.parent / "home"))


def test_all_parties_with_fresh_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    program = matrix_program(np.eye(4) * 2, np.ones(4))
    x = np.random.default_rng(0).standard_normal((3, 4))
    told: list[str] = []
    result = run_parties(
        server_of(program),
        spec_from_program(program),
        {"x": x},
        progress=lambda task, _done, _total: told.append(task),
    )
    assert np.abs(result.raw_outputs["y"] - (2 * x + 1)).max() < 1e-5
    assert tuple(result.phases) == PHASES
    assert all(result.phases[name].cpu > 0 for name in PHASES if name != "refresh")
    assert result.phases["refresh"].cpu == 0
    assert 10 << 20 < result.peak_memory_bytes < 1 << 30
    assert result.ciphertext_bytes_in > result.ciphertext_bytes_out > 0
    assert (result.refresh_rounds, result.refresh_bytes) == (0, 0)
    assert {"generating keys", "encoding weights"} <= set(told)
    evaluating = dict.fromkeys(task for task in told if task.startswith("evaluating"))
    assert list(evaluating) == [f"evaluating sample group {i} of 3" for i in (1, 2, 3)]
    assert not list(tmp_path.iterdir())


def test_all_parties_with_saved_keys_and_refreshes(case: Case) -> None:
    x = np.array([[0.5, -1.0, 1.1, 0.0], [1.0, 0.9, 0.1, -0.2]])
    result = run_parties(case.server, case.spec, {"x": x}, keys=case.keys)
    assert np.abs(result.raw_outputs["y"] - (x**8 + x**2)).max() < 1e-7
    assert result.refresh_rounds == 2
    assert result.refresh_bytes > 0
    assert result.timings["he.mul"].count == 6


def test_the_process_knows_no_secret(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HECOMPILE_TEST_SECRET", "swordfish")
    secret = (case.keys / "secret" / "secret.key").read_bytes()
    with case.process() as process:
        place = Path("/proc") / str(process._process.pid)
        command = (place / "cmdline").read_bytes().split(b"\0")
        assert command[-5] == str(case.keys / "evaluation").encode()
        assert b"swordfish" not in (place / "environ").read_bytes()
        opened = [link.readlink().as_posix() for link in (place / "fd").iterdir()]
        assert not [name for name in opened if "secret" in name]
        looked_for = {b"hecompile.runtime.worker", secret[64:128]}
        found = set()
        with (place / "maps").open() as maps, (place / "mem").open("rb", 0) as memory:
            for line in maps:
                span, modes, *_ = line.split()
                if not modes.startswith("rw") or "[v" in line:
                    continue
                start, end = (int(part, 16) for part in span.split("-"))
                memory.seek(start)
                content = memory.read(end - start)
                found |= {text for text in looked_for if text in content}
        assert found == {b"hecompile.runtime.worker"}


def test_errors_keep_their_class_and_text(case: Case) -> None:
    with case.process() as process, pytest.raises(IntegrityError, match="not an envelope"):
        process.evaluate(b"nonsense", lambda request: request)


def test_missing_keys_are_reported_before_and_from_the_process(case: Case, tmp_path: Path) -> None:
    keys = tmp_path / "evaluation"
    process = EvaluatorProcess(
        case.server.program, case.server.constants, case.spec, keys, timeout=60
    )
    with pytest.raises(InputError, match="no evaluation key in"), process:
        pass
    assert not hasattr(process, "_process")
    shutil.copytree(case.keys / "evaluation", keys)
    (keys / "relin.key").unlink()
    with pytest.raises(InputError, match=r"relin\.key is missing"), process:
        pass
    assert process._process.returncode is not None


def test_a_damaged_program_is_reported(case: Case) -> None:
    process = EvaluatorProcess(
        case.server.program[:-20], case.server.constants, case.spec, case.keys, timeout=60
    )
    with pytest.raises(IntegrityError, match="the program cannot be read"), process:
        pass


def test_a_killed_process_is_explained(case: Case) -> None:
    custodian = case.custodian()
    with case.process() as process:

        def answer(request: bytes) -> bytes:
            os.kill(process._process.pid, signal.SIGKILL)
            return custodian.refresh(request)

        with pytest.raises(HecompileError, match="killed by signal 9, perhaps for want of memory"):
            process.evaluate(case.envelope(), answer)


def test_a_slow_process_is_given_up_and_ended(case: Case) -> None:
    def stop_and_evaluate() -> None:
        with process:
            os.kill(process._process.pid, signal.SIGSTOP)
            process._timeout = 0.3
            process.evaluate(case.envelope(), lambda request: request)

    process = case.process()
    with pytest.raises(HecompileError, match=r"did not finish within 0\.3 seconds"):
        stop_and_evaluate()
    assert process._process.returncode == -signal.SIGKILL


def test_an_interrupt_ends_the_process(case: Case) -> None:
    def interrupt(_request: bytes) -> bytes:
        raise KeyboardInterrupt

    process = case.process()
    with pytest.raises(KeyboardInterrupt), process:
        process.evaluate(case.envelope(), interrupt)
    assert process._process.returncode == -signal.SIGKILL


def test_evaluations_stop_in_one_process_and_go_on_in_the_next(case: Case) -> None:
    x = np.array([[0.5, -1.0, 1.1, 0.0], [1.0, 0.9, 0.1, -0.2], [0.3, 0.2, 0.1, 0.0]])
    key = load_public_key(case.keys, case.spec.parameters, case.spec.program)
    custodian = case.custodian()
    items = [(data, b"") for data in Client(case.spec, key).encrypt({"x": x})]
    told: list[str] = []
    # Evaluations that run side by side in forked processes tell nothing of their progress.
    with case.process(tasks=Tasks(crew=2), progress=lambda *one: told.append(one[0])) as process:
        waiting = process.advance(items)
    assert "evaluating" not in told
    assert all(outcome.request and outcome.state and not outcome.output for outcome in waiting)
    answered = [(outcome.state, custodian.refresh(outcome.request)) for outcome in waiting]
    with case.process(tasks=Tasks(profile=True)) as process:
        done = process.advance(answered)
    assert process.profile is not None
    assert process.profile.evaluations == 3
    raw = [custodian.decrypt(outcome.output).raw["y"] for outcome in done]
    assert np.abs(np.concatenate(raw) - (x**8 + x**2)).max() < 1e-7
