"""Train a small network, compile it, and classify encrypted samples: the whole way in Python."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

import hecompile
from hecompile.models import train_to_directory
from hecompile.preprocess import apply_steps, load_steps


def main(folder: Path) -> None:
    # Any numbers will do: the class is whether the first four of eight add up to more than zero.
    x = np.random.default_rng(0).normal(size=(400, 8))
    np.savez(folder / "data.npz", x=x, y=(x[:, :4].sum(axis=1) > 0).astype(int))
    model = folder / "model"
    train_to_directory(str(folder / "data.npz"), "mlp", model, epochs=60)
    steps = load_steps(model / "preprocess.json")

    compiled = hecompile.compile(
        model / "model.onnx",
        calibration=model / "calibration.npz",
        preprocessing={"x": steps},
    )
    compiled.save(folder / "bundle")

    # The built-in policy: "owner" has data and keys, "cloud" evaluates in a process of its own.
    with np.load(model / "test.npz") as test:
        samples, labels = test["x"][:4], test["y"][:4]
    bundle = hecompile.open_bundle(folder / "bundle", user="owner")
    logits = bundle.run({"x": samples}).outputs["logits"]

    session = onnxruntime.InferenceSession(str(model / "model.onnx"))
    plain = session.run(["logits"], {"x": apply_steps(steps, samples)})[0]
    error = np.abs(logits - plain).max()
    print("labels:", labels, "encrypted answers:", logits.argmax(axis=1))
    print(f"largest error {error:.2g}, predicted at most {compiled.predicted_error:.2g}")
    if error > compiled.predicted_error:
        sys.exit("the prediction did not hold")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
