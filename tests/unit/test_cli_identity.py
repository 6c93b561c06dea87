"""The commands that make and show keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from hecompile.access.identity import load_identity, own_signer
from hecompile.access.signing import PublicKey, TrustStore
from hecompile.errors import InputError
from hecompile.files import config_home
from tests.unit.cli_calls import Caller


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def test_identity_new_and_show(call: Caller) -> None:
    made = call("identity", "new", "anna")
    assert made.out == load_identity("anna").text + "\n"
    assert call("identity", "show", "anna").out == made.out
    assert call("identity", "show", "anna", "--json").document == {
        "user": "anna",
        "key": made.out.strip(),
        "keyid": load_identity("anna").keyid,
    }
    assert "not replaced" in call("identity", "new", "anna", code=1).err
    assert "identity new ben" in call("identity", "show", "ben", code=1).err


def test_identity_signer_makes_the_key_that_signs_once(call: Caller, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hecompile identity signer -o KEY\.pub"):
        own_signer()
    public = tmp_path / "officer.pub"
    found = call("identity", "signer", "-o", public)
    key = own_signer()
    assert found.out == f"{public}: signing key {key.keyid}\n"
    assert PublicKey.load(public).keyid == key.keyid
    assert (config_home() / "signing.pem").stat().st_mode & 0o777 == 0o600
    assert key.keyid in [one.keyid for one in TrustStore().load()]
    again = call("identity", "signer")
    assert again.out.encode() == public.read_bytes()
    assert key.keyid in again.err
    document = call("identity", "signer", "--json").document
    assert (document["keyid"], document["pem"]) == (key.keyid, again.out)
    assert "PRIVATE" not in str(document) + again.out + public.read_text()
    assert "make it first" in call("identity", "signer", "-o", tmp_path / "no" / "k", code=1).err
