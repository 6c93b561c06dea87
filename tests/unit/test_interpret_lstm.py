"""The LSTM of the tensor interpreter against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hecompile.ir.program import Builder
from hecompile.ir.recurrent_ops import Lstm
from tests.unit.interpreting import clear, finish, onnx_answer, run_one, secret

T, N, F, H = 5, 2, 3, 4
OUTPUTS = ("Y", "Y_h", "Y_c")
CASES: dict[str, dict[str, Any]] = {
    "plain": {"used": ""},
    "bias": {"used": "b"},
    "initial states": {"used": "bhc"},
    "peepholes": {"used": "bhcp"},
    "reverse": {"used": "b", "direction": "reverse"},
    "bidirectional": {"used": "bhcp", "direction": "bidirectional"},
    "clip": {"used": "bhcp", "clip": 0.4},
    "input_forget": {"used": "bhcp", "input_forget": True},
    "activations": {
        "used": "b",
        "activations": ("hard_sigmoid(alpha=0.2, beta=0.5)", "relu", "sigmoid"),
        "onnx": ("HardSigmoid", "Relu", "Sigmoid"),
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("output", OUTPUTS)
def test_lstm_as_onnxruntime(case: dict[str, Any], output: str) -> None:
    direction = case.get("direction", "forward")
    d = 2 if direction == "bidirectional" else 1
    random = np.random.default_rng(3)
    shapes = {"w": (d, 4 * H, F), "r": (d, 4 * H, H), "b": (d, 8 * H)}
    shapes |= {"h": (d, N, H), "c": (d, N, H), "p": (d, 3 * H)}
    arrays = {k: random.normal(size=s) for k, s in shapes.items() if k in "wr" + case["used"]}
    x = random.normal(size=(2, T, N, F))
    builder = Builder(name="m")
    data = secret(builder, "x", T, N, F)
    values = {k: clear(builder, a) for k, a in arrays.items()}
    op = Lstm(
        x=data,
        w=values["w"],
        r=values["r"],
        b=values.get("b"),
        h0=values.get("h"),
        c0=values.get("c"),
        p=values.get("p"),
        hidden=H,
        direction=direction,
        activations=case.get("activations", ("sigmoid", "tanh", "tanh")) * d,
        clip=case.get("clip", 0.0),
        input_forget=case.get("input_forget", False),
        output=output,
    )
    got = run_one(finish(builder, y=builder.emit(op)), x=x)
    attributes = {"hidden_size": H, "direction": direction}
    attributes |= {"clip": case["clip"]} if "clip" in case else {}
    attributes |= {"input_forget": 1} if "input_forget" in case else {}
    attributes |= {"activations": case["onnx"]} if "onnx" in case else {}
    rest = [arrays.get(k) for k in ("w", "r", "b")] + [None]
    rest += [arrays.get(k) for k in ("h", "c", "p")]
    for sample, answer in zip(x, got, strict=True):
        expected = onnx_answer("LSTM", attributes, [sample, *rest], outputs=3)
        np.testing.assert_allclose(answer, expected[OUTPUTS.index(output)], atol=1e-5)


def test_lstm_with_secret_initial_state() -> None:
    random = np.random.default_rng(4)
    w, r = random.normal(size=(1, 4 * H, F)), random.normal(size=(1, 4 * H, H))
    x, h, c = (random.normal(size=(3, *s)) for s in ((T, N, F), (1, N, H), (1, N, H)))
    builder = Builder(name="m")
    op = Lstm(
        x=secret(builder, "x", T, N, F),
        w=clear(builder, w),
        r=clear(builder, r),
        h0=secret(builder, "h", 1, N, H),
        c0=secret(builder, "c", 1, N, H),
        hidden=H,
        output="Y_h",
    )
    got = run_one(finish(builder, y=builder.emit(op)), x=x, h=h, c=c)
    for i in range(3):
        operands = [x[i], w, r, None, None, h[i], c[i]]
        expected = onnx_answer("LSTM", {"hidden_size": H}, operands, outputs=2)
        np.testing.assert_allclose(got[i], expected[1], atol=1e-5)
