"""The parties' commands on a small bundle with real keys at 128-bit parameters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hecompile.cli import main
from tests.unit.cli_calls import POLICY, Caller, plain_mlp, save_mlp, save_signer, weights

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
        return self.folder / "keys"

    def words(self, command: str, *more: object) -> tuple[object, ...]:
        return (command, self.bundle, "--trust", self.signer, *more)


def build(folder: Path, *options: object) -> Place:
    """Compile the small model; raise where a command fails."""
    save_mlp(folder / "m.onnx", LAYERS)
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(folder / "cal.npz", x=x)
    np.savez(folder / "x.npz", x=X, y=np.zeros(len(X)))
    (folder / "policy.toml").write_text(POLICY)
    secret, public = save_signer(folder)
    words = ["compile", folder / "m.onnx", "--calibration", folder / "cal.npz",
             "--policy", folder / "policy.toml", "--sign-key", secret,
             "-o", folder / "bundle", *options]  # fmt: skip
    assert main(list(map(str, words))) == 0
    return Place(folder, public)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HECOMPILE_HOME", str(folder / "home"))
        found = build(folder)
        words = found.words("keygen", "-o", found.keys, "--as", "vault")
        assert main(list(map(str, words))) == 0
    return found


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def bound(place: Place, call: Caller) -> float:
    error: float = call(*place.words("inspect", "--json")).document["predicted_error"]
    return error


def test_keys_are_three_folders_and_the_secret_is_private(place: Place) -> None:
    assert sorted(p.name for p in place.keys.iterdir()) == ["evaluation", "public", "secret"]
    assert (place.keys / "secret").stat().st_mode & 0o077 == 0
    assert not list((place.keys / "evaluation").glob("*secret*"))


def test_run_plays_all_parties(place: Place, call: Caller, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    found = call(
        *place.words("run", "--input", place.folder / "x.npz", "--as", "anna", "-o", out, "--json")
    )
    document = found.document
    raw = np.array(document["raw_outputs"]["y"])
    assert raw.shape == (3, 2)
    assert np.abs(raw - plain_mlp(LAYERS, X)).max() <= bound(place, call)
    np.testing.assert_allclose(np.sum(document["outputs"]["y"], axis=1), 1.0)
    assert set(document["phases"]) == {
        "keygen", "load", "encrypt", "evaluate", "refresh", "decrypt",
    }  # fmt: skip
    for phase in document["phases"].values():
        assert set(phase) == {"cpu_seconds", "wall_seconds"}
    assert document["peak_memory_bytes"] > 0
    assert document["ciphertext_bytes"]["in"] > document["ciphertext_bytes"]["out"] > 0
    assert "'vault' is to hold key:secret" in found.err
    assert out.stat().st_mode & 0o777 == 0o600
    with np.load(out) as stored:
        np.testing.assert_allclose(stored["y"], document["outputs"]["y"])


def test_three_parties_hand_files_to_each_other(place: Place, call: Caller, tmp_path: Path) -> None:
    sent, result = tmp_path / "in.hect", tmp_path / "out.hect"
    call(
        *place.words("encrypt", "--keys", place.keys / "public", "--as", "anna"),
        "--input", place.folder / "x.npz", "-o", sent,
    )  # fmt: skip
    done = call(
        *place.words("evaluate", "--keys", place.keys / "evaluation", "--as", "cloud"),
        "--input", sent, "-o", result, "--json",
    )  # fmt: skip
    assert done.document["status"] == "done"
    # Only one user of the policy may decrypt, so none need be named.
    found = call(
        *place.words("decrypt", "--keys", place.keys / "secret"), "--input", result, "--json"
    )
    assert "acting as 'anna'" in found.err
    raw = np.array(found.document["raw_outputs"]["y"])
    assert np.abs(raw - plain_mlp(LAYERS, X)).max() <= bound(place, call)
    text = call(*place.words("decrypt", "--keys", place.keys, "--as", "anna"), "--input", result)
    assert "raw" in text.out


def test_encoded_weights_are_kept_where_asked(place: Place, call: Caller, tmp_path: Path) -> None:
    cache, sent = tmp_path / "cache", tmp_path / "in.hect"
    words = ["--input", place.folder / "x.npz", "--keys", place.keys, "--as", "anna"]
    call(*place.words("run", *words, "--weights-cache", cache, "--workers", 1))
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    call(*place.words("encrypt", *words), "-o", sent)
    more = place.words("evaluate", "--keys", place.keys, "--as", "cloud", "--input", sent)
    call(*more, "-o", tmp_path / "out.hect", "--weights-cache", cache, "--workers", 1)
    file.write_bytes(file.read_bytes()[:-1])
    for command in (more, place.words("run", *words)):
        out = tmp_path / f"{command[0]}.new"
        found = call(*command, "-o", out, "--weights-cache", cache, "--workers", 1, code=4)
        assert f"{file} is no cache of this program's weights" in found.err
        assert "remove the file" in found.err


def test_evaluation_keeps_matrix_products_to_one_thread(tmp_path: Path) -> None:
    script = """if True:
        import os
        from hecompile.cli import main
        code = main(["evaluate", "none", "--keys", "k", "--input", "i", "-o", "o"])
        print(code, os.environ["OPENBLAS_NUM_THREADS"], os.environ["OMP_NUM_THREADS"])
    """
    environment = {n: v for n, v in os.environ.items() if not n.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "OMP_NUM_THREADS": "2", "HECOMPILE_HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "1", "2"]


COMMANDS = {
    "keygen": ["-o", "new"],
    "encrypt": ["--keys", "nowhere", "--input", "nothing", "-o", "new"],
    "evaluate": ["--keys", "nowhere", "--input", "nothing", "-o", "new"],
    "refresh": ["--keys", "nowhere", "--input", "nothing", "-o", "new"],
    "decrypt": ["--keys", "nowhere", "--input", "nothing"],
    "run": ["--input", "nothing", "-o", "new"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("user", ["rene", "nobody"])
def test_denied_before_anything_is_looked_at(
    place: Place,
    command: str,
    user: str,
    call: Caller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    audit = tmp_path / "log" / "audit.jsonl"
    words = place.words(command, "--as", user, "--audit-log", audit, *COMMANDS[command])
    found = call(*words, code=3)
    assert found.err.startswith(f"Access Denied: user '{user}' may not ")
    assert found.err.count("\n") == 1
    assert not found.out
    assert not (tmp_path / "new").exists()
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [entry["decision"] for entry in entries] == ["deny"]
    assert call("audit", "verify", audit, "--json").document["entries"] == 1


def test_denial_comes_before_a_damaged_file_is_found(
    place: Place, call: Caller, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(place.bundle, copy)
    (copy / "server" / "program.hir").write_text("changed")
    words = ("--trust", place.signer, "--input", place.folder / "x.npz", "--as")
    assert "changed" in call("run", copy, *words, "anna", code=4).err
    assert "Access Denied" in call("run", copy, *words, "rene", code=3).err


def test_warnings_of_the_policy_are_told(place: Place, call: Caller) -> None:
    """The clinician sees ciphertexts and decrypted values, and holds no key."""
    [warning] = call(*place.words("inspect", "--json")).document["warnings"]
    assert warning.startswith("user 'anna' may encrypt input:x (clinician) and decrypt output:y")
    assert f"warning: {warning}" in call(*place.words("inspect")).out


def test_a_user_must_be_named_where_it_is_not_clear(
    place: Place, call: Caller, tmp_path: Path
) -> None:
    policy = place.folder / "policy.toml"
    two = tmp_path / "two.toml"
    two.write_text(policy.read_text() + 'berta = ["clinician"]\n')
    made = call(
        "compile", place.folder / "m.onnx", "--calibration", place.folder / "cal.npz",
        "--policy", two, "-o", tmp_path / "b", "--json",
    )  # fmt: skip
    told = made.document["warnings"]
    assert [text.split()[1] for text in told] == ["'anna'", "'berta'"]
    assert all(f"warning: {text}" in made.err for text in told)
    found = call("run", tmp_path / "b", "--input", place.folder / "x.npz", code=2)
    assert "--as USER" in found.err
    assert "anna, berta" in found.err


def tamper_manifest(bundle: Path) -> None:
    file = bundle / "manifest.json"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def remove_constants(bundle: Path) -> None:
    (bundle / "server" / "constants.npz").unlink()


def add_file(bundle: Path) -> None:
    (bundle / "server" / "extra.py").write_text("print()")


@pytest.mark.parametrize("harm", [tamper_manifest, remove_constants, add_file])
@pytest.mark.parametrize("command", ["run", "inspect"])
def test_tampered_bundles_are_refused(
    place: Place, harm: object, command: str, call: Caller, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(place.bundle, copy)
    harm(copy)  # type: ignore[operator]
    more = ["--input", place.folder / "x.npz", "--as", "anna"] if command == "run" else []
    found = call(command, copy, "--trust", place.signer, *more, code=4)
    assert found.err.splitlines()[-1].startswith("error: ")
    assert "bundle" in found.err.splitlines()[-1]
    assert not found.out


def test_unknown_signer_is_told_how_to_trust(place: Place, call: Caller) -> None:
    found = call("inspect", place.bundle, code=4)
    assert "--trust" in found.err


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"z": X}, "'x'"),
        ({"x": X[:, :3]}, "shape"),
        ({"x": X * np.nan}, "nan"),
        ({"x": X.astype(str)}, "type"),
        ({"x": X[:0]}, "shape"),
    ],
)
def test_bad_samples(
    place: Place, arrays: dict[str, np.ndarray], told: str, call: Caller, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.npz"
    np.savez(bad, **arrays)  # type: ignore[arg-type]
    out = tmp_path / "out.npz"
    words = place.words("run", "--input", bad, "--as", "anna", "--keys", place.keys, "-o", out)
    found = call(*words, code=1)
    assert told in found.err
    assert not out.exists()


def test_samples_out_of_range_are_warned_of(place: Place, call: Caller, tmp_path: Path) -> None:
    far = tmp_path / "far.npz"
    np.savez(far, x=X * 10)
    sent = tmp_path / "in.hect"
    found = call(
        *place.words("encrypt", "--keys", place.keys, "--as", "anna"), "--input", far, "-o", sent
    )
    assert "warning: input 'x'" in found.err
    result = tmp_path / "out.hect"
    call(*place.words("evaluate", "--keys", place.keys), "--input", sent, "-o", result)
    words = place.words("decrypt", "--keys", place.keys, "--as", "anna", "--json")
    found = call(*words, "--input", result)
    (told,) = found.document["warnings"]
    assert told.startswith("output 'y' holds ")
    assert f"warning: {told}" in found.err
    document = call(
        *place.words("run", "--input", far, "--as", "anna", "--keys", place.keys, "--json")
    ).document
    assert [text.split("'")[0] for text in document["warnings"]] == ["input ", "output "]
    assert [entry["label"] for entry in document["out_of_range"]] == ["x"]


def test_keys_of_another_run_do_not_fit(place: Place, call: Caller, tmp_path: Path) -> None:
    other = tmp_path / "other"
    made = call(*place.words("keygen", "-o", other, "--as", "vault", "--json")).document
    assert set(made["bytes"]) == {"secret", "public", "evaluation"}
    assert "exists already" in call(*place.words("keygen", "-o", other), code=1).err
    sent, result = tmp_path / "in.hect", tmp_path / "out.hect"
    call(
        *place.words("encrypt", "--keys", other, "--as", "anna"),
        "--input", place.folder / "x.npz", "-o", sent,
    )  # fmt: skip
    words = place.words("evaluate", "--keys", place.keys, "--input", sent, "-o", result)
    assert "key" in call(*words, code=4).err
    call(*place.words("evaluate", "--keys", other, "--input", sent, "-o", result))
    words = place.words("decrypt", "--keys", place.keys, "--input", result)
    assert "key" in call(*words, code=4).err
    missing = place.words("decrypt", "--keys", tmp_path / "none", "--input", result)
    assert "no secret key" in call(*missing, code=1).err


def test_keys_and_ciphertexts_are_bound_to_the_policy(
    place: Place, call: Caller, tmp_path: Path
) -> None:
    """The same model compiled under another policy opens neither the old keys nor ciphertexts."""
    policy = tmp_path / "more.toml"
    policy.write_text(POLICY + 'eve = ["clinician"]\n')
    other, sent = tmp_path / "b", tmp_path / "in.hect"
    call(
        "compile", place.folder / "m.onnx", "--calibration", place.folder / "cal.npz",
        "--policy", policy, "-o", other,
    )  # fmt: skip
    call("keygen", other, "-o", tmp_path / "keys", "--as", "vault")
    call(
        *place.words("encrypt", "--keys", place.keys, "--as", "anna"),
        "--input", place.folder / "x.npz", "-o", sent,
    )  # fmt: skip
    words = ("evaluate", other, "--input", sent, "-o", tmp_path / "out", "--keys")
    found = call(*words, place.keys, code=4)
    assert "are for the bundle of manifest" in found.err
    found = call(*words, tmp_path / "keys", code=4)
    assert "the encrypted input is for the bundle of manifest" in found.err
    run = ("run", other, "--as", "eve", "--input", place.folder / "x.npz", "--keys", place.keys)
    assert "make keys for this bundle" in call(*run, code=4).err


def test_files_that_are_no_ciphertexts(place: Place, call: Caller, tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.hect", tmp_path / "out.hect"
    words = place.words("evaluate", "--keys", place.keys, "--input", bad, "-o", out)
    assert "cannot read" in call(*words, code=1).err
    for content in (b"", b"nonsense of some length", b"HECT\x01\x00\x02\x00\x00\x00"):
        bad.write_bytes(content)
        assert "bad.hect" in call(*words, code=4).err
    assert not out.exists()
    words = place.words("evaluate", "--keys", place.keys, "-o", out)
    assert "--resume" in call(*words, code=2).err


def test_a_bundle_that_is_none(call: Caller, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        assert str(path) in call("inspect", path, code=1).err


@pytest.mark.parametrize("command", ["encrypt", "evaluate", "refresh", "decrypt", "run"])
def test_places_that_cannot_be_written_are_found_early(
    place: Place, command: str, call: Caller, tmp_path: Path
) -> None:
    who = {"evaluate": "cloud", "refresh": "vault"}.get(command, "anna")
    keys = [] if command == "run" else ["--keys", "nowhere"]
    words = (*keys, "--input", "nothing", "--as", who, "-o")
    assert "does not exist" in call(*place.words(command, *words, tmp_path / "a/b"), code=1).err
    assert "is a folder" in call(*place.words(command, *words, tmp_path), code=1).err
