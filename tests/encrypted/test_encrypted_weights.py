"""Encrypted weights with real keys at 128 bits: right answers, and what the evaluator can reach."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import hecompile
from hecompile.access.audit import AuditLog
from hecompile.access.key_state import KeyState
from hecompile.access.policy import Policy
from hecompile.access.policy_io import parse_policy
from hecompile.access.signing import SigningKey
from hecompile.access.users import UserEntry, Users
from hecompile.bundle.store import export_bundle, open_bundle_files
from hecompile.cli import main
from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.errors import AccessDeniedError, HecompileError, InputError, IntegrityError
from hecompile.ir.constants import Array
from hecompile.ir.public import public_form, weight_arrays
from hecompile.passes.encrypt_weights import EncryptWeights
from hecompile.runtime.client import Client
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.envelope import Kind, read_header
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import evaluation_keys, generate_keys, public_key, secret_key
from hecompile.runtime.model_weights import OWNER_FILE, ModelOwner, read_owner
from hecompile.runtime.parties import Bundle, open_bundle
from tests.encrypted.compiled_models import answers, samples, square_mlp, worst

POLICY = """
format = 2
[roles.client]
[roles.modeller]
[roles.vault]
[roles.cloud]
[[permissions]]
role = "client"
actions = ["encrypt", "submit", "decrypt", "hold"]
objects = ["input:x", "output:d1", "key:secret"]
[[permissions]]
role = "modeller"
actions = ["encrypt"]
objects = ["model"]
[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]
"""
ROLES = {"anna": "client", "mona": "modeller", "server": "cloud"}
MODEL = square_mlp(layers=(4, 4, 3))
X = samples(MODEL, 3, seed=5)


def policy() -> Policy:
    return parse_policy(POLICY.replace("[roles.vault]\n", ""))


def compiled_with(batch: int = 1) -> Compiled:
    entries = tuple(UserEntry(name, (role,)) for name, role in ROLES.items())
    return hecompile.compile(
        MODEL,
        calibration=samples(MODEL, 200, seed=7),
        passes=[EncryptWeights()],
        policy=policy(),
        users=Users(policy().digest, 1, "", "", entries),
        options=CompileOptions(batch=batch),
        precision=1e-3,
    )


@pytest.mark.parametrize("batch", [1, 4096])
def test_answers_equal_onnxruntimes_within_the_bound(batch: int) -> None:
    compiled = compiled_with(batch)
    program, spec = public_form(compiled.program), compiled.spec
    names = {op.name for op in program}
    assert not names & {"he.sum_mul_plain", "he.mul_plain", "he.add_plain"}
    ring = generate_keys(spec.parameters, galois_steps(program), spec.program)
    public = public_key(ring.source(Role.PUBLIC))
    model = ModelOwner(program, weight_arrays(compiled.program), public).encrypt()
    assert read_header(model).kind is Kind.MODEL
    keys = evaluation_keys(ring.source(Role.EVALUATION))
    evaluator = Evaluator(program, keys, model=model)
    custodian = Custodian(spec, secret_key(ring.source(Role.SECRET)))
    inputs = samples(MODEL, min(batch + 1, 12), seed=11)
    # The same ciphertexts of the weights serve one evaluation after the other.
    for _ in range(2):
        found = []
        for data in Client(spec, public).encrypt(inputs):
            evaluation = evaluator.start(data)
            assert evaluation.advance() is None
            found.append(custodian.decrypt(evaluation.output()).raw["d1"])
        raw = {"d1": np.concatenate(found)}
        assert worst(raw, answers(MODEL, inputs)) <= compiled.predicted_error <= 1e-3


@dataclass(frozen=True)
class Place:
    """A bundle, what is exported of it, keys for it, and the encrypted model."""

    folder: Path
    compiled: Compiled
    signer: SigningKey

    @property
    def model(self) -> bytes:
        return (self.folder / "model.hew").read_bytes()

    def open(self, user: str, name: str = "bundle") -> Bundle:
        log = AuditLog(self.folder / "log")
        trust = [self.signer.public_key]
        return open_bundle(self.folder / name, user=user, trust=trust, audit=log)

    def words(self, command: str, name: str | Path, *more: object) -> list[str]:
        return [
            command, str(self.folder / name), "--trust", str(self.folder / "signer.pub"),
            *map(str, more),
        ]  # fmt: skip

    def evaluator(self, model: bytes | None) -> Evaluator:
        return self.open("server", "cloud").evaluator(self.folder / "keys", model=model)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """All users' identities are on this machine, for all tests of this file."""
    folder = tmp_path_factory.mktemp("owner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HECOMPILE_HOME", str(folder / "home"))
        compiled, signer = compiled_with(), SigningKey.generate()
        compiled.save(folder / "bundle", signing_key=signer)
        (folder / "signer.pub").write_bytes(signer.public_key.pem)
        made = Place(folder, compiled, signer)
        export_bundle(open_bundle_files(folder / "bundle", [signer.public_key]), folder / "cloud")
        made.open("anna").keygen(folder / "keys", secret_folder=folder / "vault")
        (folder / "model.hew").write_bytes(made.open("mona").encrypt_model(folder / "keys"))
    return made


@pytest.fixture(autouse=True)
def home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins with everybody's identity, and with no key seen yet."""
    monkeypatch.setenv("HECOMPILE_HOME", str(place.folder / "home"))
    KeyState().path.unlink(missing_ok=True)


def test_each_party_does_its_part_and_the_evaluator_has_no_owners_part(place: Place) -> None:
    data = place.open("anna", "cloud").client(place.folder / "keys").encrypt(X)
    evaluator = place.evaluator(place.model)
    found = []
    for sample in data:
        evaluation = evaluator.start(sample)
        assert evaluation.advance() is None
        custodian = place.open("anna", "cloud").custodian(place.folder / "vault")
        found.append(custodian.decrypt(evaluation.output()).raw["d1"])
    raw = {"d1": np.concatenate(found)}
    assert worst(raw, answers(MODEL, X)) <= place.compiled.predicted_error


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, and every array of its .npz files unpacked."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found[str(path.relative_to(folder))] = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{path.name}/{n}": arrays[n].tobytes() for n in arrays.files}
    return found


def traces(place: Place) -> dict[str, bytes]:
    """Whatever would give a weight away: its bytes, its digits, a digest of its constant."""
    found = {}
    program = place.compiled.program
    for name, array in weight_arrays(program).items():
        for value in {float(v) for v in array.flat if v}:
            found[f"{name} {value} f64"] = np.float64(value).tobytes()
            found[f"{name} {value} text"] = repr(value)[:9].encode()
    for constant in program.constants.values():
        if constant.array.size > 1 or abs(constant.array.flat[0]) != 1.0:
            found[f"digest {constant.digest}"] = constant.digest.encode()
    for stored in MODEL.graph.initializer:
        raw = stored.raw_data
        found |= {f"{stored.name} {i}": raw[i : i + 4] for i in range(0, len(raw), 4)}
    return found


def leaks(wanted: dict[str, bytes], files: dict[str, bytes]) -> list[tuple[str, str]]:
    """Which trace is in which file."""
    return [
        (what, f) for f, data in files.items() for what, trace in wanted.items() if trace in data
    ]


def test_no_file_of_the_evaluators_holds_a_weight(place: Place) -> None:
    wanted, files = traces(place), contents(place.folder / "cloud")
    assert len(wanted) > 40
    assert "server/program.hir" in files
    assert "server/program.py" in files
    assert not [name for name in files if name.startswith("owner")]
    assert not leaks(wanted, files)
    owner = b"".join(contents(place.folder / "bundle" / "owner").values())
    assert any(trace in owner for what, trace in wanted.items() if what.endswith("f64"))


def test_such_traces_would_be_found_where_weights_are_plain(place: Place, tmp_path: Path) -> None:
    plain = hecompile.compile(MODEL, calibration=samples(MODEL, 200, seed=7))
    plain.save(tmp_path / "plain", signing_key=place.signer)
    found = leaks(traces(place), contents(tmp_path / "plain"))
    assert {"server/program.hir", "server/constants.npz"} & {file for _, file in found}
    assert len(found) > 10


def test_the_owners_part_is_salted_and_as_large_for_other_weights(place: Place) -> None:
    """Its SHA-256 and size stand in the manifest, which the evaluator reads."""
    data = (place.folder / "bundle" / OWNER_FILE).read_bytes()
    again = place.folder / "again"
    place.compiled.save(again, signing_key=place.signer)
    other = (again / OWNER_FILE).read_bytes()
    assert other != data
    assert len(other) == len(data)
    program = public_form(place.compiled.program)
    for one in (data, other):
        for name, array in read_owner(one, program).items():
            np.testing.assert_array_equal(array, weight_arrays(place.compiled.program)[name])


def test_without_the_model_there_is_no_evaluation(place: Place) -> None:
    with pytest.raises(InputError, match="are encrypted; give the file"):
        place.evaluator(None)


def test_the_model_of_another_key_is_refused(place: Place, tmp_path: Path) -> None:
    place.open("anna").keygen(tmp_path / "keys", secret_folder=tmp_path / "vault")
    other = place.open("mona").encrypt_model(tmp_path / "keys")
    with pytest.raises(IntegrityError, match="encrypted under key"):
        place.evaluator(other)


def test_the_model_of_another_bundle_is_refused(place: Place, tmp_path: Path) -> None:
    """Its program may well be the same: weights do not show in it."""
    place.compiled.save(tmp_path / "bundle", signing_key=place.signer)
    other = dataclasses.replace(place, folder=tmp_path)
    other.open("anna").keygen(tmp_path / "keys", secret_folder=tmp_path / "vault")
    model = other.open("mona").encrypt_model(tmp_path / "keys")
    assert read_header(model).program == read_header(place.model).program
    with pytest.raises(IntegrityError, match="which has the same program"):
        place.evaluator(model)
    with pytest.raises(IntegrityError, match="are for"):
        place.open("mona").encrypt_model(tmp_path / "keys")


def test_the_model_of_another_program_is_refused(place: Place) -> None:
    compiled = compiled_with(batch=2)
    program = public_form(compiled.program)
    ring = generate_keys(compiled.spec.parameters, (), compiled.spec.program)
    weights = weight_arrays(compiled.program)
    other = ModelOwner(program, weights, public_key(ring.source(Role.PUBLIC))).encrypt()
    with pytest.raises(IntegrityError, match="is for program"):
        place.evaluator(other)


def test_encrypted_inputs_are_no_model_and_damage_is_seen(place: Place) -> None:
    data = place.open("anna").client(place.folder / "keys").encrypt(X)[0]
    with pytest.raises(IntegrityError, match="of kind input, where model"):
        place.evaluator(data)
    changed = bytearray(place.model)
    changed[-100] ^= 1
    with pytest.raises(IntegrityError, match="was changed"):
        place.evaluator(bytes(changed))
    with pytest.raises(IntegrityError, match="cut off"):
        place.evaluator(place.model[:-5])


@pytest.mark.parametrize("user", ["anna", "server", "nobody"])
def test_only_the_models_owner_encrypts_it(place: Place, user: str) -> None:
    with pytest.raises(AccessDeniedError, match="may not encrypt model"):
        place.open(user).encrypt_model(place.folder / "keys")
    last = (place.folder / "log").read_text().splitlines()[-1]
    assert (json.loads(last)["action"], json.loads(last)["object"]) == ("encrypt", "model")


def test_an_exported_bundle_has_no_weights_to_encrypt(place: Place) -> None:
    with pytest.raises(InputError, match="exported without its owner's part"):
        place.open("mona", "cloud").encrypt_model(place.folder / "keys")


def test_an_owners_part_that_was_changed_is_refused(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.folder / "bundle", tmp_path / "bundle")
    buffer = io.BytesIO()
    np.savez(buffer, values=np.zeros(1), salt=np.zeros(32, np.uint8))
    (tmp_path / "bundle" / OWNER_FILE).write_bytes(buffer.getvalue())
    with pytest.raises(IntegrityError, match="was changed"):
        dataclasses.replace(place, folder=tmp_path).open("mona")
    with pytest.raises(IntegrityError, match="does not hold the weights"):
        read_owner(buffer.getvalue(), public_form(place.compiled.program))


def test_run_plays_the_models_owner_too(place: Place) -> None:
    words = place.words("run", "bundle", "--as", "anna", "--json")
    np.savez(place.folder / "x.npz", x=X["x"])
    command = [sys.executable, "-m", "hecompile", *words, "--input", str(place.folder / "x.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    raw: dict[str, Array] = {"d1": np.array(document["raw_outputs"]["d1"])}
    assert worst(raw, answers(MODEL, X)) <= place.compiled.predicted_error
    assert document["phases"]["encrypt-model"]["cpu_seconds"] > 0
    assert "'mona' is to encrypt model" in done.stderr


def test_the_command_line_hands_files_from_party_to_party(place: Place, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X["x"])
    keys, copy = place.folder / "keys", tmp_path / "cloud.hec"
    steps = [
        place.words("export", "bundle", "-o", copy),
        place.words("encrypt-model", "bundle", "--public", keys / "public", "--as", "mona",
                    "-o", tmp_path / "model.hew"),
        place.words("encrypt", "cloud", "--keys", keys / "public", "--input", tmp_path / "x.npz",
                    "--as", "anna", "-o", tmp_path / "in.hect"),
        place.words("evaluate", copy, "--keys", keys / "evaluation", "--input",
                    tmp_path / "in.hect", "--model", tmp_path / "model.hew", "--as", "server",
                    "-o", tmp_path / "out.hect"),
        place.words("decrypt", "cloud", "--keys", place.folder / "vault", "--input",
                    tmp_path / "out.hect", "--as", "anna", "-o", tmp_path / "y.npz"),
    ]  # fmt: skip
    for words in steps:
        assert main(words) == 0, words
    with np.load(tmp_path / "y.npz") as found:
        assert worst({"d1": found["d1"]}, answers(MODEL, X)) <= place.compiled.predicted_error


def test_a_model_for_a_program_with_plain_weights_is_refused(place: Place) -> None:
    plain = hecompile.compile(MODEL, calibration=samples(MODEL, 200, seed=7))
    spec = plain.spec
    ring = generate_keys(spec.parameters, galois_steps(plain.program), spec.program)
    keys = evaluation_keys(ring.source(Role.EVALUATION))
    with pytest.raises(InputError, match="are plain; leave the encrypted model out"):
        Evaluator(plain.program, keys, model=place.model)
    with pytest.raises(InputError, match="compile it with --encrypt-model"):
        ModelOwner(plain.program, {}, public_key(ring.source(Role.PUBLIC)))


def test_a_policy_that_grants_the_model_to_nobody_is_refused_at_compile_time() -> None:
    text = POLICY.replace('actions = ["encrypt"]\nobjects = ["model"]',
                          'actions = ["read"]\nobjects = ["audit"]')  # fmt: skip
    with pytest.raises(HecompileError, match="no role may encrypt them"):
        hecompile.compile(
            MODEL,
            calibration=samples(MODEL, 200, seed=7),
            passes=[EncryptWeights()],
            policy=parse_policy(text),
        )
