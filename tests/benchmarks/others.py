"""What other libraries took for the same models: measured once, elsewhere, and not run again.

Figures are CPU seconds of the evaluator on one thread of a two-core Xeon of the Sapphire Rapids
kind, measured on 2026-11-21, a day of its own: machines drift by half, so only ratios well above
that say something.
"""

from __future__ import annotations

from dataclasses import dataclass

MEASURED = "2026-11-21"


@dataclass(frozen=True)
class Other:
    """A figure of another library.

    Attributes:
        row: the row whose model and batch it is for.
        name: library and version.
        setting: ring degree, and what else differs.
        seconds: CPU seconds of one evaluation.
        error: largest distance from the model.
        key_bytes: size of the evaluation keys; None where not known.
    """

    row: str
    name: str
    setting: str
    seconds: float
    error: float
    key_bytes: float | None


HELAYERS, ORION, HEIR = "HElayers 1.5.5.4", "Orion v2", "HEIR"

CITATIONS = {
    HELAYERS: "HeLayers: A Tile Tensors Framework for Large Neural Networks on Encrypted Data,"
    " PoPETs 2023(1), arXiv 2011.01805",
    ORION: "Orion: A Fully Homomorphic Encryption Framework for Deep Learning, ASPLOS 2025,"
    " arXiv 2311.03470",
    HEIR: "HEIR: A Universal Compiler for Homomorphic Encryption, arXiv 2508.11095",
}
"""The papers that describe the libraries; the figures are not theirs."""

OTHERS = (
    Other("CryptoNets 1e-3", ORION, "Lattigo, N = 8192", 0.50, 2e-4, 264e6),
    Other("CryptoNets 1e-6", ORION, "Lattigo, N = 16384", 1.12, 7.5e-7, 540e6),
    Other("CryptoNets 1e-6", HELAYERS, "SEAL, N = 16384", 2.46, 1e-9, 281e6),
    Other("DiabetesMLP", ORION, "Lattigo, N = 8192", 0.34, 2e-4, 110e6),
    Other("DiabetesMLP", HEIR, "OpenFHE, N = 16384", 2.4, 8.8e-8, None),
    Other("DiabetesMLP x4096", HELAYERS, "SEAL, N = 16384", 1.37, 1.5e-10, 35e6),
    Other(
        "DiabetesMLP x4096, encrypted weights",
        HELAYERS,
        "SEAL, N = 16384, weights encrypted",
        5.40,
        1.6e-9,
        59e6,
    ),
    Other(
        "LeNet5 degree 2",
        HELAYERS,
        "SEAL, N = 32768, degree-2 activations",
        29.0,
        3.7e-9,
        3.0e9,
    ),
)
