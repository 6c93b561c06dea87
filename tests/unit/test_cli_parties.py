"""The parties' commands on a small bundle with real keys at 128-bit parameters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.cli_calls import USERS, Caller, plain_mlp, save_policy
from tests.unit.cli_parties import LAYERS, Place, X, lend_settings, make_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def settings(place: Place, hecompile_home: Path) -> None:
    lend_settings(place)


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
    assert "'cloud' is to evaluate program" in found.err
    assert out.stat().st_mode & 0o777 == 0o600
    with np.load(out) as stored:
        np.testing.assert_allclose(stored["y"], document["outputs"]["y"])


def test_three_parties_hand_files_to_each_other(place: Place, call: Caller, tmp_path: Path) -> None:
    sent, result = tmp_path / "in.hect", tmp_path / "out.hect"
    call(
        *place.words("encrypt", "--keys", place.public, "--as", "anna"),
        "--input", place.folder / "x.npz", "-o", sent,
    )  # fmt: skip
    done = call(
        *place.words("evaluate", "--keys", place.evaluation, "--as", "cloud"),
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
    # Whoever holds the key may look again; the evaluator takes an envelope once.
    text = call(*place.words("decrypt", "--keys", place.keys, "--as", "anna"), "--input", result)
    assert "raw" in text.out
    again = place.words("evaluate", "--keys", place.evaluation, "--as", "cloud", "--input", sent)
    assert "received before" in call(*again, "-o", tmp_path / "again.hect", code=4).err
    assert not (tmp_path / "again.hect").exists()


def test_encoded_weights_are_kept_where_asked(place: Place, call: Caller, tmp_path: Path) -> None:
    cache, sent = tmp_path / "cache", tmp_path / "in.hect"
    samples = ["--input", place.folder / "x.npz", "--as", "anna"]
    words = [*samples, "--keys", place.keys]
    call(*place.words("run", *words, "--weights-cache", cache, "--workers", 1))
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    call(*place.words("encrypt", *samples, "--keys", place.public), "-o", sent)
    more = place.words("evaluate", "--keys", place.evaluation, "--as", "cloud", "--input", sent)
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


def test_a_user_must_be_named_where_it_is_not_clear(
    place: Place, call: Caller, tmp_path: Path
) -> None:
    two = save_policy(tmp_path, users=USERS + 'berta = ["clinician"]\n')
    call(
        "compile", place.folder / "m.onnx", "--calibration", place.folder / "cal.npz",
        *two, "-o", tmp_path / "b",
    )  # fmt: skip
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
        *place.words("encrypt", "--keys", place.public, "--as", "anna"), "--input", far, "-o", sent
    )
    assert "warning: input 'x'" in found.err
    result = tmp_path / "out.hect"
    call(*place.words("evaluate", "--keys", place.evaluation), "--input", sent, "-o", result)
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
