"""The parties' own programs: what they offer, and that a secret key stays far from two of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hecompile.cli.group import COMMANDS
from hecompile.cli.parties_cli import PARTIES
from tests.packaging.sources import pyproject
from tests.unit.cli_calls import save_mlp, weights

KEY_READERS = {"hecompile.runtime.custodian", "hecompile.runtime.vault"}
"""Modules without which no secret key can be read or used."""

PROGRAM = """
import json, sys
from hecompile.cli import parties_cli
code = getattr(parties_cli, sys.argv[1])(sys.argv[3:])
with open(sys.argv[2], "w") as file:
    json.dump([code, sorted(name for name in sys.modules if name.startswith("hecompile"))], file)
"""


def play(party: str, folder: Path, *words: object) -> tuple[int, set[str], str]:
    """Run a party's program; its exit code, the modules that it loaded, and what it said."""
    loaded = folder / "loaded.json"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, party, str(loaded), *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(loaded.read_text())
    return code, set(modules), done.stdout + done.stderr


def test_every_party_is_a_program() -> None:
    scripts = pyproject()["project"]["scripts"]
    for party, (_, names) in PARTIES.items():
        assert scripts[f"hecompile-{party}"] == f"hecompile.cli.parties_cli:{party}"
        assert set(names) <= set(COMMANDS)


def test_only_the_custodian_makes_keys_and_decrypts() -> None:
    for command in ("keygen", "refresh", "decrypt"):
        assert [party for party, (_, names) in PARTIES.items() if command in names] == ["custodian"]


@pytest.mark.parametrize(
    ("party", "command"),
    [(party, name) for party in ("client", "evaluator") for name in PARTIES[party][1]],
)
def test_no_command_of_client_or_evaluator_loads_what_reads_the_key(
    party: str, command: str, tmp_path: Path
) -> None:
    code, modules, told = play(party, tmp_path, command, "--help")
    assert code == 0, told
    assert f"Usage: hecompile-{party} {command}" in told
    assert not modules & KEY_READERS


@pytest.mark.parametrize("party", PARTIES)
def test_a_program_lists_its_commands_and_has_no_others(party: str, tmp_path: Path) -> None:
    code, _, told = play(party, tmp_path, "--help")
    assert code == 0
    for name in COMMANDS:
        assert (f"\n  {name} " in told) == (name in PARTIES[party][1])
    code, modules, told = play(party, tmp_path, "compile")
    assert code == 2
    assert "there is no command 'compile'" in told
    assert not modules & KEY_READERS


def test_a_whole_evaluation_keeps_the_key_readers_out(tmp_path: Path) -> None:
    save_mlp(tmp_path / "model.onnx", weights(1, 4, 3, 2))
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=x)
    np.savez(tmp_path / "x.npz", x=x[:1])
    words = ["compile", "model.onnx", "--calibration", "calibration.npz", "-o", "bundle"]
    subprocess.run([sys.executable, "-m", "hecompile", *words], cwd=tmp_path, check=True)

    def party(name: str, *words: object) -> tuple[set[str], str]:
        code, modules, told = play(name, tmp_path, *words)
        assert code == 0, told
        return modules, told

    bundle, owner, cloud = tmp_path / "bundle", ("--as", "owner"), ("--as", "cloud")
    secret, keys = tmp_path / "vault", tmp_path / "keys"
    used, _ = party("custodian", "keygen", bundle, "-o", keys, "--secret-dir", secret, *owner)
    assert "hecompile.runtime.vault" in used
    used, _ = party(
        "client", "encrypt", bundle, "--keys", keys / "public", "--input", "x.npz",
        "-o", "in.hect", *owner,
    )  # fmt: skip
    assert not used & KEY_READERS
    used, _ = party(
        "evaluator", "evaluate", bundle, "--keys", keys / "evaluation", "--input", "in.hect",
        "-o", "out.hect", *cloud,
    )  # fmt: skip
    assert not used & KEY_READERS
    used, told = party(
        "custodian", "decrypt", bundle, "--keys", secret, "--input", "out.hect", *owner
    )
    assert used >= KEY_READERS
    assert "y" in told
