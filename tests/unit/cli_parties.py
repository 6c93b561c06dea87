"""A small bundle at 128-bit parameters, its keys, and what each party was given of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hecompile.cli import main
from hecompile.files import config_home
from tests.unit.cli_calls import (
    POLICY,
    lend_identities,
    save_mlp,
    save_policy,
    save_signer,
    weights,
)

LAYERS = weights(2, 4, 3, 2)
X = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)


@dataclass(frozen=True)
class Place:
    """A compiled bundle, keys for it, samples, and who signed it."""

    folder: Path
    signer: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def keys(self) -> Path:
        """All keys, as their holder made them."""
        return self.folder / "keys"

    @property
    def public(self) -> Path:
        """What the client was given."""
        return self.folder / "keys-handed" / "public"

    @property
    def evaluation(self) -> Path:
        """What the evaluator was given."""
        return self.folder / "keys-handed" / "evaluation"

    def words(self, command: str, *more: object) -> tuple[object, ...]:
        return (command, self.bundle, "--trust", self.signer, *more)


def hand_over(keys: Path) -> Path:
    """Copy the folders of client and evaluator to where the secret key does not lie."""
    handed = keys.with_name(f"{keys.name}-handed")
    for role in ("public", "evaluation"):
        shutil.copytree(keys / role, handed / role)
    return handed


def build(folder: Path, *options: object, policy: str = POLICY) -> Place:
    """Compile the small model; raise where a command fails."""
    save_mlp(folder / "m.onnx", LAYERS)
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(folder / "cal.npz", x=x)
    np.savez(folder / "x.npz", x=X, y=np.zeros(len(X)))
    secret, public = save_signer(folder)
    words = ["compile", folder / "m.onnx", "--calibration", folder / "cal.npz",
             *save_policy(folder, policy), "--sign-key", secret,
             "-o", folder / "bundle", *options]  # fmt: skip
    assert main(list(map(str, words))) == 0
    return Place(folder, public)


def make_place(folder: Path) -> Place:
    """A bundle with keys, made with settings of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HECOMPILE_HOME", str(folder / "home"))
        found = build(folder)
        words = found.words("keygen", "-o", found.keys, "--as", "vault")
        assert main(list(map(str, words))) == 0
    hand_over(found.keys)
    return found


def lend_settings(place: Place) -> None:
    """Give the present test every user's identity and what the secret key at rest is locked with.

    It has none of the nonces.
    """
    home = place.folder / "home"
    lend_identities(home)
    shutil.copy(home / "vault.key", config_home())
