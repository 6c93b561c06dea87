"""Bad input by the command line: an exit code, a sentence on stderr, and nothing written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hecompile.cli import main
from tests.unit.cli_calls import (
    Caller,
    lend_identities,
    save_mlp,
    save_policy,
    save_signer,
    weights,
)

LAYERS = weights(3, 4, 3, 2)
X = np.random.default_rng(6).normal(size=(2, 4)).astype(np.float32)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and samples, and nothing else."""
    monkeypatch.chdir(tmp_path)
    save_mlp(tmp_path / "m.onnx", LAYERS)
    np.savez(tmp_path / "cal.npz", x=np.repeat(X, 10, axis=0))
    return tmp_path


def tree(folder: Path) -> dict[Path, bytes | None]:
    """Every file and folder below, with contents."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refused(place: Path, call: Caller, *words: object, code: int) -> str:
    """The sentence on stderr of a command that must fail and change nothing."""
    before = tree(place)
    found = call(*words, code=code)
    assert not found.out
    assert tree(place) == before
    assert "internal error" not in found.err
    # What was done before the error is told too.
    head, error, tail = found.err.partition("error: ")
    assert error, found.err
    assert "error" not in head
    assert tail.endswith("\n")
    return tail


def refused_compile(place: Path, call: Caller, *more: object, code: int = 1) -> str:
    words = ("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", *more)
    return refused(place, call, *words, code=code)


@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_truncated_models(place: Path, part: float, call: Caller) -> None:
    data = (place / "m.onnx").read_bytes()
    (place / "m.onnx").write_bytes(data[: int(len(data) * part)])
    error = refused_compile(place, call)
    assert error.startswith("m.onnx is cut off")
    assert error.count("\n") == 1


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(40), b"\x89PNG\r\n", b"{}", bytes(64)])
def test_files_that_are_no_models(place: Path, content: bytes, call: Caller) -> None:
    (place / "m.onnx").write_bytes(content)
    error = refused_compile(place, call)
    assert error.startswith("m.onnx ")
    assert "export" in error
    assert error.count("\n") == 1


def test_a_model_that_is_missing_or_a_folder(place: Path, call: Caller) -> None:
    (place / "m.onnx").unlink()
    assert "m.onnx cannot be read: No such file" in refused_compile(place, call)
    (place / "m.onnx").mkdir()
    assert "m.onnx cannot be read: Is a directory" in refused_compile(place, call)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers(place: Path, bad: float, call: Caller) -> None:
    first, second = (matrix.copy() for matrix in LAYERS)
    second[1, 1] = bad
    save_mlp(place / "m.onnx", (first, second))
    error = refused_compile(place, call)
    assert "'w1'" in error
    assert error.count("\n") == 1


def save_unsupported(path: Path) -> None:
    """Two layers that cannot be computed under encryption, one between them that can."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], "pool", kernel_shape=[2]),
        helper.make_node("Relu", ["p"], ["r"], "act"),
        helper.make_node("TopK", ["r", "k"], ["v", "i"], "best"),
        helper.make_node("Identity", ["v"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 1])],
        [numpy_helper.from_array(np.array([1]), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def test_every_unsupported_node_is_listed_with_a_remedy(place: Path, call: Caller) -> None:
    save_unsupported(place / "m.onnx")
    np.savez(place / "cal.npz", x=np.zeros((8, 1, 4), np.float32))
    error = refused_compile(place, call)
    for word in ("'pool'", "MaxPool", "AveragePool", "'best'", "TopK"):
        assert word in error
    assert "'act'" not in error


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": np.full((9, 4), np.nan)}, "calibration: input 'x' holds nan in sample 0"),
        ({"x": np.full((9, 4), np.inf)}, "calibration: input 'x' holds inf in sample 0"),
        ({"x": np.zeros((0, 4))}, "calibration: the array 'x' is empty"),
        ({"x": np.zeros((9, 2, 4))}, "calibration: input 'x' has the shape (9, 2, 4)"),
        ({"x": np.full((9, 4), "a")}, "calibration: input 'x' holds elements of type <U1"),
        ({"x": np.zeros((9, 4), complex)}, "calibration: input 'x' holds elements of type complex"),
        ({}, "calibration: the model's input 'x' is missing and the file has no arrays"),
    ],
)
def test_calibration(place: Path, arrays: dict[str, np.ndarray], told: str, call: Caller) -> None:
    np.savez(place / "cal.npz", **arrays)  # type: ignore[arg-type]
    error = refused_compile(place, call)
    assert told in error
    assert error.count("\n") == 1


def test_calibration_with_python_objects_is_not_unpickled(place: Path, call: Caller) -> None:
    np.savez(place / "cal.npz", x=np.array([{"a": 1}], dtype=object))
    assert "cal.npz" in refused_compile(place, call)


@dataclass(frozen=True)
class Built:
    """A compiled bundle with keys, and who signed it."""

    folder: Path
    signer: Path

    def words(self, command: str, *more: object) -> tuple[object, ...]:
        return (command, self.folder / "bundle", "--trust", self.signer, *more)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("bad-input")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HECOMPILE_HOME", str(folder / "home"))
        save_mlp(folder / "m.onnx", LAYERS)
        np.savez(folder / "cal.npz", x=np.repeat(X, 10, axis=0))
        np.savez(folder / "x.npz", x=X)
        governed = save_policy(folder)
        secret, public = save_signer(folder)
        made = Built(folder, public)
        calls: list[tuple[object, ...]] = [
            ("compile", folder / "m.onnx", "--calibration", folder / "cal.npz", *governed,
             "--sign-key", secret, "-o", folder / "bundle"),
            made.words("keygen", "--as", "vault", "-o", folder / "keys"),
        ]  # fmt: skip
        for words in calls:
            assert main([str(word) for word in words]) == 0
    hand_over(folder / "keys", folder / "handed")
    return made


def hand_over(keys: Path, target: Path) -> None:
    """Give away what may be known of keys: neither party takes a folder beside the secret one."""
    for part in ("public", "evaluation"):
        shutil.copytree(keys / part, target / part)


@pytest.fixture
def built(made_once: Built) -> Built:
    """The bundle, on a machine that every user works at."""
    lend_identities(made_once.folder / "home")
    return made_once


FILES = (
    "manifest.json",
    "report.json",
    "client/spec.json",
    "server/program.hir",
    "server/program.py",
    "server/constants.npz",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["run", "inspect", "keygen"])
def test_one_changed_byte_anywhere(
    built: Built, name: str, command: str, call: Caller, tmp_path: Path
) -> None:
    shutil.copytree(built.folder / "bundle", tmp_path / "bundle")
    file = tmp_path / "bundle" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0x20
    file.write_bytes(bytes(data))
    more: dict[str, tuple[object, ...]] = {
        "run": ("--input", built.folder / "x.npz", "--as", "anna"),
        "inspect": (),
        "keygen": ("--as", "vault", "-o", tmp_path / "keys"),
    }
    words = (command, tmp_path / "bundle", "--trust", built.signer, *more[command])
    error = refused(tmp_path, call, *words, code=4)
    assert f"{name} of bundle {tmp_path / 'bundle'}" in error
    assert "changed" in error


def no_folder(_keys: Path) -> None:
    """Leave nothing there."""


def empty_folder(keys: Path) -> None:
    keys.mkdir()


def other_party(keys: Path) -> None:
    """All keys but the one that is needed."""
    keys.mkdir()
    (keys / "notes.txt").write_text("keys were here")


@pytest.mark.parametrize("harm", [no_folder, empty_folder, other_party])
@pytest.mark.parametrize(
    ("command", "needed", "user"),
    [("encrypt", "public", "anna"), ("evaluate", "evaluation", "cloud"),
     ("decrypt", "secret", "anna"), ("run", "secret", "anna")],
)  # fmt: skip
def test_missing_keys(
    built: Built, command: str, needed: str, user: str, harm: Callable[[Path], None],
    call: Caller, tmp_path: Path,
) -> None:  # fmt: skip
    keys, sent, result = tmp_path / "keys", tmp_path / "in.hect", tmp_path / "out.hect"
    if command in ("evaluate", "decrypt"):
        send(built, call, built.folder / "handed", sent)
    if command == "decrypt":
        evaluate = built.words(
            "evaluate", "--keys", built.folder / "handed/evaluation", "--input", sent
        )
        call(*evaluate, "-o", result)
    harm(keys)
    source = {"evaluate": sent, "decrypt": result}.get(command, built.folder / "x.npz")
    target = () if command in ("decrypt", "run") else ("-o", tmp_path / "new")
    words = built.words(command, "--keys", keys, "--as", user, "--input", source, *target)
    error = refused(tmp_path, call, *words, code=1)
    assert f"no {needed} key" in error
    assert "keygen" in error


def send(built: Built, call: Caller, keys: Path, sent: Path) -> None:
    words = built.words("encrypt", "--keys", keys / "public", "--as", "anna")
    call(*words, "--input", built.folder / "x.npz", "-o", sent)


def test_ciphertexts_of_another_key(built: Built, call: Caller, tmp_path: Path) -> None:
    other, sent, result = tmp_path / "other", tmp_path / "in.hect", tmp_path / "out.hect"
    call(*built.words("keygen", "--as", "vault", "-o", other))
    hand_over(other, tmp_path / "handed")
    send(built, call, tmp_path / "handed", sent)
    words = built.words("evaluate", "--keys", built.folder / "handed/evaluation", "--input", sent)
    error = refused(tmp_path, call, *words, "-o", result, code=4)
    assert "encrypted under key" in error
    assert error.count("\n") == 1


def test_a_cut_off_or_changed_ciphertext(built: Built, call: Caller, tmp_path: Path) -> None:
    sent = tmp_path / "in.hect"
    send(built, call, built.folder / "handed", sent)
    data = sent.read_bytes()
    words = built.words("evaluate", "--keys", built.folder / "handed/evaluation", "--input", sent)
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for bad in (data[: len(data) // 2], data[:-1], data + b"more", bytes(changed)):
        sent.write_bytes(bad)
        error = refused(tmp_path, call, *words, "-o", tmp_path / "out.hect", code=4)
        assert "the encrypted input" in error or "in.hect" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((2, 4), complex), "type complex128"),
        (np.full((2, 4), "a"), "type <U1"),
        (np.zeros((2, 4, 1)), "shape (2, 4, 1)"),
        (np.zeros(4), "shape (4,)"),
        (np.array(1.0), "shape ()"),
        (np.array([[0, 0, np.inf, 0]]), "inf"),
        (np.array([[0, 0, 0, -np.nan]]), "nan"),
        (np.full((1, 4), 1e30), "1e+30"),
    ],
)
def test_samples(built: Built, array: np.ndarray, told: str, call: Caller, tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    np.savez(bad, x=array)
    for command, keys in (("encrypt", "handed"), ("run", "keys")):
        words = built.words(command, "--input", bad, "--as", "anna", "-o", tmp_path / "new")
        words += ("--keys", built.folder / keys)
        error = refused(tmp_path, call, *words, code=1)
        assert told in error
        assert "'x'" in error


@pytest.mark.parametrize("moment", ["approximating", "planning"])
@pytest.mark.parametrize("target", ["b", "b.hec"])
def test_interrupted_compile_leaves_no_half_bundle(place: Path, moment: str, target: str) -> None:
    random = np.random.default_rng(0)
    layers = tuple(random.normal(size=(24, 24)).astype(np.float32) / 5 for _ in range(5))
    save_mlp(place / "m.onnx", layers)
    np.savez(place / "cal.npz", x=random.normal(size=(2000, 24)))
    before = tree(place)
    words = ["compile", "m.onnx", "--calibration", "cal.npz", "--precision", "1e-2", "-o", target]
    process = subprocess.Popen(
        [sys.executable, "-m", "hecompile", *words],
        cwd=place,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background ignores SIGINT, and so would its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    told = ""
    while moment not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    # Python ends itself by the signal where it came while text was compiled, in an import say;
    # a shell tells 130 for both.
    assert process.returncode in (130, -signal.SIGINT), error
    assert error.endswith("interrupted; nothing was written\n")
    assert "Traceback" not in error
    assert not out
    assert tree(place) == before
