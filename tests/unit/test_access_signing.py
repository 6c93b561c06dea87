"""Keys, trust and envelopes."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from hecompile.access.records import canonical_json
from hecompile.access.signing import (
    PAYLOAD_TYPE,
    PublicKey,
    Signed,
    SigningKey,
    TrustedKeys,
    TrustStore,
    cosign,
    default_key_path,
    sign,
    verify_signed,
)
from hecompile.access.users import key_text, parse_key_text
from hecompile.errors import InputError, IntegrityError

STATEMENT = b'{"a":1}'
KEY = SigningKey.generate()
OTHER = SigningKey.generate()
ENVELOPE = sign(STATEMENT, KEY)


def verify(
    envelope: bytes, trusted: Sequence[PublicKey], payload_type: str = PAYLOAD_TYPE
) -> bytes:
    return verify_signed(envelope, trusted, payload_type=payload_type).payload


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("HECOMPILE_HOME", str(home))
    return home


def test_key_is_made_once_private_and_trusted(home: Path) -> None:
    key = SigningKey.load_or_create()
    assert default_key_path() == home / "signing.pem"
    assert default_key_path().stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert SigningKey.load_or_create().keyid == key.keyid
    assert [trusted.keyid for trusted in TrustStore().load()] == [key.keyid]
    assert verify(sign(STATEMENT, key), TrustStore().load()) == STATEMENT


def test_withdrawn_trust_stays_withdrawn(home: Path) -> None:
    key = SigningKey.load_or_create()
    (home / "trusted" / f"{key.keyid[:16]}.pub").unlink()
    SigningKey.load_or_create()
    assert TrustStore().load() == ()


def test_two_makers_at_once_agree_on_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    start = threading.Barrier(4)

    def make() -> None:
        start.wait()
        found.append(SigningKey.load_or_create(tmp_path / "k.pem").keyid)

    makers = [threading.Thread(target=make) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(found) == 4
    assert [key.keyid for key in TrustStore().load()] == [found[0]]
    assert set(found) == {found[0]}


def test_secret_is_never_shown(tmp_path: Path) -> None:
    assert repr(KEY) == f"SigningKey(keyid='{KEY.keyid}')"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_key_open_to_others_is_refused(mode: int) -> None:
    SigningKey.load_or_create()
    default_key_path().chmod(mode)
    with pytest.raises(IntegrityError, match="chmod 600"):
        SigningKey.load_or_create()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_key_of_another_user_is_refused() -> None:
    SigningKey.load_or_create()
    os.chown(default_key_path(), 12345, 12345)
    with pytest.raises(IntegrityError, match="belongs to another user"):
        SigningKey.load_or_create()


def private_pem(key: Ed25519PrivateKey | X25519PrivateKey, password: bytes | None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        (b"", "not an unencrypted private key"),
        (b"\xff" * 99, "not an unencrypted private key"),
        (private_pem(Ed25519PrivateKey.generate(), b"pw"), "not an unencrypted private key"),
        (private_pem(X25519PrivateKey.generate(), None), "not an Ed25519 key"),
    ],
)
def test_other_key_files_are_refused_and_kept(tmp_path: Path, pem: bytes, words: str) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(pem)
    path.chmod(0o600)
    with pytest.raises(InputError, match=words):
        SigningKey.load_or_create(path)
    assert path.read_bytes() == pem


def test_trust_for_one_command(tmp_path: Path) -> None:
    path = tmp_path / "signer.pub"
    path.write_bytes(KEY.public_key.pem)
    assert TrustStore().load() == ()
    assert verify(ENVELOPE, TrustStore().load([path])) == STATEMENT
    assert TrustStore().load() == ()
    assert PublicKey.load(path) == KEY.public_key


@pytest.mark.parametrize("place", ["folder", "file"])
def test_trust_that_others_can_change_is_refused(home: Path, place: str) -> None:
    path = TrustStore().add(KEY.public_key)
    (path if place == "file" else path.parent).chmod(0o777)
    with pytest.raises(IntegrityError, match="chmod go-w"):
        TrustStore().load()


@pytest.mark.parametrize("kind", ["text", "x25519", "private"])
def test_other_public_keys_are_refused(tmp_path: Path, kind: str) -> None:
    x25519 = X25519PrivateKey.generate().public_key()
    pem = {
        "text": b"hello",
        "x25519": x25519.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "private": private_pem(KEY.private, None),
    }[kind]
    (tmp_path / "k.pub").write_bytes(pem)
    with pytest.raises(InputError, match=r"k\.pub is not"):
        TrustStore().load([tmp_path / "k.pub"])
    with pytest.raises(InputError, match="cannot read"):
        TrustStore().load([tmp_path / "none.pub"])


PRIME = 2**255 - 19
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
WEAK = [0, 1, PRIME - 1, ORDER_8, PRIME - ORDER_8, PRIME, PRIME + 1]


@pytest.mark.parametrize("sign_bit", [0, 1])
@pytest.mark.parametrize("second", WEAK)
def test_keys_under_which_anybody_can_sign_are_refused(
    tmp_path: Path, second: int, sign_bit: int
) -> None:
    point = (second | sign_bit << 255).to_bytes(32, "little")
    key = Ed25519PublicKey.from_public_bytes(point)
    # What makes them dangerous: a signature that nobody made, R and S as small as can be.
    if second == 1 and not sign_bit:
        key.verify(b"\x01" + bytes(63), b"whatever is wanted")
    path = tmp_path / "k.pub"
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InputError, match=r"k\.pub is a key under which anybody can sign"):
        PublicKey.load(path)
    with pytest.raises(InputError, match="anybody can sign"):
        TrustStore().load([path])
    with pytest.raises(InputError, match="anybody can sign"):
        parse_key_text(key_text(point))


@pytest.mark.parametrize("second", [PRIME + 2, PRIME + 18, 2**255 - 1])
def test_a_key_has_one_spelling(second: int) -> None:
    point = second.to_bytes(32, "little")
    with pytest.raises(InputError, match="in its one spelling"):
        parse_key_text(key_text(point))
    key = Ed25519PublicKey.from_public_bytes(point)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InputError, match="in its one spelling"):
        PublicKey.from_pem(pem, "the key")


def test_unknown_signer_is_named_with_the_remedy() -> None:
    with pytest.raises(IntegrityError, match=r"not trusted here.*--trust") as caught:
        verify(ENVELOPE, [OTHER.public_key])
    assert KEY.keyid in str(caught.value)
    assert caught.value.exit_code == 4
    with pytest.raises(IntegrityError):
        verify(ENVELOPE, [])


def forged(**changes: object) -> bytes:
    return canonical_json({**json.loads(ENVELOPE), **changes}) + b"\n"


def signature(keyid: str, of: bytes = ENVELOPE) -> dict[str, str]:
    return {"keyid": keyid, "sig": json.loads(of)["signatures"][0]["sig"]}


@pytest.mark.parametrize(
    "envelope",
    [
        forged(payload=base64.b64encode(b'{"a":2}').decode()),
        forged(payload="%%%"),
        forged(payload=7),
        forged(payloadType="text/plain"),
        forged(signatures=[]),
        forged(signatures={}),
        forged(signatures=[signature(KEY.keyid), signature(KEY.keyid)]),
        forged(signatures=[signature(KEY.keyid), signature(OTHER.keyid)]),
        forged(signatures=[signature(KEY.keyid, sign(STATEMENT, OTHER))]),
        forged(signatures=[{**signature(KEY.keyid), "cert": "x"}]),
        forged(signatures=[{"keyid": KEY.keyid, "sig": ""}]),
        forged(signatures=[{"keyid": KEY.keyid}]),
        forged(signatures=[3]),
        forged(extra=1),
        ENVELOPE[:-1],
        ENVELOPE + b"\n",
        b" " + ENVELOPE,
        ENVELOPE.replace(b'{"payload"', b'{"payload":"","payload"', 1),
        ENVELOPE.replace(KEY.keyid.encode(), KEY.keyid.upper().encode()),
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"payload":NaN}',
    ],
)
def test_forged_envelopes_are_refused(envelope: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        verify(envelope, [KEY.public_key, OTHER.public_key])
    assert "\n" not in str(caught.value)


def test_a_signature_by_another_key_under_the_trusted_ones_name_is_refused() -> None:
    stolen = forged(signatures=[signature(KEY.keyid, sign(STATEMENT, OTHER))])
    with pytest.raises(IntegrityError, match="changed after signing"):
        verify(stolen, [KEY.public_key])


def test_every_changed_byte_is_refused() -> None:
    for position in range(len(ENVELOPE)):
        for bit in (1, 0x20, 0x80):
            changed = bytearray(ENVELOPE)
            changed[position] ^= bit
            with pytest.raises(IntegrityError):
                verify(bytes(changed), [KEY.public_key])


@given(st.binary(max_size=200) | st.integers(0, len(ENVELOPE)).map(lambda n: ENVELOPE[:n]))
def test_garbage_is_refused_without_a_crash(data: bytes) -> None:
    if data == ENVELOPE:
        return
    with pytest.raises(IntegrityError):
        verify(data, [KEY.public_key])


def test_envelope_is_dsse_with_an_in_toto_payload() -> None:
    envelope = json.loads(ENVELOPE)
    assert set(envelope) == {"payload", "payloadType", "signatures"}
    assert envelope["payloadType"] == PAYLOAD_TYPE
    # Verified here by the DSSE specification itself, without the library that signed.
    pae = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), 7, STATEMENT)
    sig = base64.b64decode(envelope["signatures"][0]["sig"])
    KEY.private.public_key().verify(sig, pae)


def test_two_signatures_in_whichever_order_give_the_same_bytes() -> None:
    both = cosign(ENVELOPE, OTHER)
    assert both == cosign(sign(STATEMENT, OTHER), KEY)
    signed = verify_signed(both, [KEY.public_key, OTHER.public_key])
    assert signed == Signed(STATEMENT, tuple(sorted((KEY.keyid, OTHER.keyid))))
    with pytest.raises(IntegrityError, match="not trusted here"):
        verify_signed(both, [KEY.public_key])
    exchanged = json.loads(both)
    exchanged["signatures"].reverse()
    with pytest.raises(IntegrityError, match="not a signed document"):
        verify_signed(canonical_json(exchanged) + b"\n", [KEY.public_key, OTHER.public_key])


def test_signing_again_and_too_many_signatures_are_refused() -> None:
    with pytest.raises(InputError, match="already"):
        cosign(ENVELOPE, KEY)
    envelope = ENVELOPE
    for _ in range(15):
        envelope = cosign(envelope, SigningKey.generate())
    with pytest.raises(IntegrityError, match="16 signatures already"):
        cosign(envelope, OTHER)


def test_the_threshold_counts_distinct_trusted_keys() -> None:
    keys = TrustedKeys([KEY.public_key, KEY.public_key, OTHER.public_key], threshold=2)
    assert len(keys) == 2
    with pytest.raises(IntegrityError, match="1 of the 2 signatures"):
        verify(ENVELOPE, keys)
    assert verify(cosign(ENVELOPE, OTHER), keys) == STATEMENT
    for wrong in (0, -1, 17):
        with pytest.raises(InputError, match="signatures cannot be asked for"):
            TrustedKeys([KEY.public_key], wrong)


def test_the_kind_of_document_is_signed() -> None:
    kind = "application/vnd.example+json"
    other = sign(STATEMENT, KEY, kind)
    assert verify(other, [KEY.public_key], payload_type=kind) == STATEMENT
    with pytest.raises(IntegrityError, match="not a signed document"):
        verify(other, [KEY.public_key])
    renamed = other.replace(kind.encode(), PAYLOAD_TYPE.encode())
    with pytest.raises(IntegrityError, match="does not match its signature"):
        verify(renamed, [KEY.public_key])


def test_the_store_keeps_the_threshold_and_the_keys_for_users(home: Path) -> None:
    store = TrustStore()
    assert store.load().threshold == 1
    store.add(KEY.public_key)
    store.add(OTHER.public_key, users_only=True)
    store.require(3)
    found = store.load()
    assert (found, found.threshold) == ((KEY.public_key,), 3)
    assert found.delegates == (OTHER.public_key,)
    path = home / "trusted" / "threshold"
    assert path.stat().st_mode & 0o777 == 0o600
    for text in ("", "0", "17", "x", "-1", "3 4", "\u0663", "99999999999"):
        path.write_text(text)
        with pytest.raises(IntegrityError, match="no number of signatures"):
            store.load()


@pytest.mark.parametrize("place", ["threshold", "users", "users/key"])
def test_what_others_can_change_does_not_lower_the_threshold_or_add_keys(
    home: Path, place: str
) -> None:
    key = TrustStore().add(OTHER.public_key, users_only=True)
    TrustStore().require(2)
    (key if place == "users/key" else home / "trusted" / place).chmod(0o777)
    with pytest.raises(IntegrityError, match="chmod go-w"):
        TrustStore().load()
