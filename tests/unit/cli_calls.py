"""What tests of the command line share: calls in this process, and small models."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hecompile.access.signing import SigningKey
from hecompile.cli import main
from hecompile.files import config_home

POLICY = """\
format = 2
[roles.clinician]
[roles.custodian]
[roles.evaluator]
[roles.researcher]
[[permissions]]
role = "clinician"
actions = ["encrypt", "submit", "decrypt", "hold"]
objects = ["input:x", "output:y", "key:secret"]
[[permissions]]
role = "custodian"
actions = ["hold", "refresh"]
objects = ["key:secret", "program"]
[[permissions]]
role = "evaluator"
actions = ["evaluate"]
objects = ["program"]
[[permissions]]
role = "researcher"
actions = ["read"]
objects = ["audit"]
"""

USERS = """\
format = 1
version = 1
[users]
anna = ["clinician"]
vault = ["custodian"]
cloud = ["evaluator"]
rene = ["researcher"]
"""


def save_policy(folder: Path, policy: str = POLICY, users: str = USERS) -> tuple[str, ...]:
    """Write a policy and its users, and give the options of `compile` that name them."""
    (folder / "policy.toml").write_text(policy)
    (folder / "users.toml").write_text(users)
    return ("--policy", str(folder / "policy.toml"), "--users", str(folder / "users.toml"))


def lend_identities(home: Path) -> None:
    """Let the present test act as every user of another settings folder, with its keys."""
    shutil.copytree(home / "identities", config_home() / "identities", dirs_exist_ok=True)
    if (home / "vault.key").exists():
        shutil.copy2(home / "vault.key", config_home())


@dataclass(frozen=True)
class Call:
    """What a call gave."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


class Caller:
    """Calls the command line in this process; `extra` words are added to bundle commands."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, code: int = 0) -> Call:
        self._capsys.readouterr()
        found = main([str(word) for word in words])
        captured = self._capsys.readouterr()
        call = Call(found, captured.out, captured.err)
        assert found == code, f"{words}: {call}"
        assert "Traceback" not in call.err
        return call


def weights(seed: int, *dims: int) -> tuple[np.ndarray, ...]:
    """Weights of linear layers between `dims`, scaled to keep values small."""
    rng = np.random.default_rng(seed)
    return tuple(
        (rng.normal(size=(m, n)) / np.sqrt(m)).astype(np.float32) for m, n in pairwise(dims)
    )


def save_mlp(path: Path, layers: tuple[np.ndarray, ...], hidden: str = "Sigmoid") -> None:
    """Write y = softmax(... hidden(x W0) W1 ...) with an open batch."""
    nodes, stored, value = [], [], "x"
    for i, matrix in enumerate(layers):
        stored.append(numpy_helper.from_array(matrix, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"z{i}"], f"linear{i}"))
        value = f"z{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node(hidden, [value], [f"a{i}"], f"hidden{i}"))
            value = f"a{i}"
    nodes.append(helper.make_node("Softmax", [value], ["y"], "softmax", axis=1))
    first, last = layers[0].shape[0], layers[-1].shape[1]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", first])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", last])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def plain_mlp(layers: tuple[np.ndarray, ...], x: np.ndarray) -> np.ndarray:
    """The raw output (before softmax) of `save_mlp`'s model."""
    value = x.astype(np.float64)
    for matrix in layers[:-1]:
        value = 1.0 / (1.0 + np.exp(-(value @ matrix)))
    return np.asarray(value @ layers[-1])


def save_signer(folder: Path) -> tuple[Path, Path]:
    """A signing key and its public half, in files."""
    from hecompile.access.signing import TrustStore

    secret = folder / "signer.pem"
    key = SigningKey.load_or_create(secret, TrustStore(folder / "nowhere"))
    public = folder / "signer.pub"
    public.write_bytes(key.public_key.pem)
    return secret, public
