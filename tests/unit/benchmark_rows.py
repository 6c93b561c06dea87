"""Measured rows made up for tests of the benchmarks' tables and page."""

from __future__ import annotations

from typing import Any


def measured(name: str = "DiabetesMLP", series: str = "", at: int = 0) -> dict[str, Any]:
    """A row with round figures: 0.2 s where 0.1 s were predicted, on a machine 1.6 times slower."""
    spent = {"cpu": 0.2, "wall": 0.3}
    phases = ("keygen", "load", "encrypt", "evaluate", "refresh", "decrypt")
    return {
        "row": name,
        "model": name,
        "series": series,
        "at": at,
        "batch": 4,
        "rounds": 3,
        "compared_with": "onnxruntime",
        "report": {
            "parameters": {
                "poly_modulus_degree": 8192,
                "coeff_modulus_bits": [30, 52, 52, 26, 54],
                "scale_bits": 26,
            },
            "depth": 5,
            "levels": 3,
            "key_switches": 12,
            "refreshes": 0,
            "galois_keys": 9,
            "galois_key_bytes": 23_592_960,
            "predicted_seconds": 0.1,
            "segments": [{"requests": 2, "responses": 3}, {"requests": 0, "responses": 0}],
        },
        "bound": 1e-3,
        "noise_bound": 5e-4,
        "compile": {"cpu": 2.0, "wall": 2.5},
        "compile_peak_memory_bytes": 400_000_000,
        "phases": dict.fromkeys(phases, spent),
        "measured_seconds": 0.2,
        "two_processes": {"cpu": 0.22, "wall": 0.12},
        "machine_factor": 1.6,
        "operations": [
            {"operation": "he.rotate", "count": 10.0, "predicted": 0.08, "measured": 0.15},
            {"operation": "he.mul", "count": 2.0, "predicted": 0.02, "measured": 0.05},
        ],
        "measured_error": 1e-5,
        "polynomial_error": 5e-6,
        "refresh_rounds": 1,
        "ciphertext_bytes": {
            "in": 2_000_000,
            "out": 100_000,
            "refresh": 500_000,
            "up": 200_000,
            "down": 300_000,
        },
        "key_bytes": {"evaluation": 10_000_000, "public": 500_000, "secret": 250_000},
        "peak_memory_bytes": 100_000_000,
        "plain": {
            "poly_modulus_degree": 16384,
            "phases": {"evaluate": {"cpu": 2.5, "wall": 2.5}},
            "measured_error": 3e-3,
            "peak_memory_bytes": 300_000_000,
        },
    }


def by_steps(slope: float, constant: float, *steps: int) -> list[dict[str, Any]]:
    """Rows of the reference model whose evaluator takes `slope` a step and `constant` seconds."""
    rows = []
    for n in steps:
        found = measured(f"steps {n}", "steps", n)
        # The machine's factor is 1.6.
        rows.append(found | {"measured_seconds": 1.6 * (constant + slope * n)})
    return rows


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    """What the benchmark program writes, with these rows."""
    machine = {
        "date": "2026-01-02",
        "architecture": "x86_64",
        "cores": 2,
        "features": ["avx2"],
        "python": "3.11.7",
        "tenseal": "0.3.18",
        "seal": "4.3",
    }
    return {"machine": machine, "rows": [*rows]}
