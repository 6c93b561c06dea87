"""Users documents: read strictly, held against their policy, signed, and believed only then."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.access.identity import generate_identity
from hecompile.access.policy import Policy, single_owner_policy
from hecompile.access.policy_io import parse_policy
from hecompile.access.records import canonical_json
from hecompile.access.signing import SigningKey, cosign, sign
from hecompile.access.users import (
    USERS_NAME,
    USERS_PAYLOAD_TYPE,
    UserEntry,
    Users,
    check_times,
    check_users,
    key_text,
    parse_key_text,
    parse_users,
    read_users,
    sign_users,
    single_owner_users,
    users_from_json,
    users_to_json,
    users_to_toml,
    verify_users,
)
from hecompile.errors import InputError, IntegrityError
from tests.unit.policies_for_tests import CLINIC, STAFF, clinic

OFFICER, SECOND, STRANGER = (SigningKey.generate() for _ in range(3))
ANNA, BEN = generate_identity("anna"), generate_identity("ben")
POLICY = parse_policy(CLINIC)
TEXT = f"""\
format = 1
version = 7
not_before = "2025-01-01T00:00:00Z"
not_after = "2026-01-01T00:00:00Z"

[users]
anna = {{roles = ["doctor"], key = "{ANNA.text}"}}
cloud = ["cloud"]
"""


def change(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def test_a_document_is_read() -> None:
    users = parse_users(TEXT, POLICY, "u.toml")
    assert (users.policy, users.version) == (POLICY.digest, 7)
    anna = users.user("anna")
    assert anna == UserEntry("anna", ("doctor",), ANNA.public_bytes)
    assert anna is not None
    assert anna.where == "u.toml, line 7"
    assert anna.keyid == ANNA.keyid
    assert users.of_key(ANNA.keyid) is anna
    assert users.of_key(BEN.keyid) is None
    # Who has no key cannot be found by one.
    assert users.of_key("") is None
    cloud = users.user("cloud")
    assert cloud is not None
    assert cloud.keyid == ""
    assert users.user("Anna") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (change("format = 1", "format = 2"), ["line 1", "upgrade"]),
        (change("version = 7\n", ""), ["lacks the key 'version'"]),
        (change("version = 7", "version = 0"), ["line 2", "from 1 to"]),
        (change("version = 7", "version = 1.0"), ["line 2", "whole number"]),
        (change("version = 7", f"version = {2**53 + 1}"), ["line 2", "from 1 to"]),
        (change("2025-01-01T00:00:00Z", "2025-01-01"), ["line 3", "a time in UTC"]),
        (change("2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), ["not later than not_before"]),
        (change("[users]", "[people]"), ["'people'"]),
        (change("version = 7", 'version = 7\npolicy = "a"'), ["'policy'"]),
        (change("cloud =", '" cloud" ='), ["line 8", "not a usable name"]),
        (change('["cloud"]', '["cloud", "cloud"]'), ["line 8", "twice"]),
        (change('["cloud"]', "[1]"), ["line 8", "list of texts"]),
        (change('["cloud"]', '"cloud"'), ["line 8", "must be a list of roles, such as"]),
        (change("cloud =", '"cl\\u043eud" ='), ["line 6", "mixes letters of CYRILLIC, LATIN"]),
        (change("cloud =", '"cl\\u200boud" ='), ["line 6", r"holds '\u200b'"]),
        (change("cloud =", f'"{"é" * 65}" ='), ["line 8", "has more than 128 bytes"]),
        (change("cloud =", '"cl\\u001b[31moud" ='), ["line 6", r"'cl\x1b[31moud'"]),
        (change("version = 7", 'version = 7\n"\\u001b[31mx" = 1'), [r"unknown key '\x1b[31mx'"]),
        (change('["cloud"]', '["\\u001b[31mx", "\\u001b[31mx"]'), [r"names '\x1b[31mx' twice"]),
        (change('["cloud"]', '{key = "a"}'), ["lacks the key 'roles'"]),
        (change('["cloud"]', '{roles = [], kee = "a"}'), ["'kee'", "roles, key"]),
        (change(ANNA.text, "ed25519:AAAA"), ["line 7", "user 'anna'", "identity new USER"]),
        (change(ANNA.text, ANNA.text.removeprefix("ed25519:")), ["no identity key"]),
        (change(ANNA.text, ANNA.text.rstrip("=")), ["no identity key"]),
        (change(ANNA.text, "ed25519:" + "A" * 43 + "="), ["anybody can sign"]),
        (change('["cloud"]', f'{{roles = [], key = "{ANNA.text}"}}'),
         ["line 8", "users 'anna' and 'cloud' have the same key"]),
    ],
)  # fmt: skip
def test_malformed_documents_name_file_and_line(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_users(text, POLICY, "u.toml")
    for word in ("u.toml", *words):
        assert word in str(caught.value)
    assert str(caught.value).isprintable()


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def points_of_small_order() -> set[int]:
    """Second coordinates of 8 torsion points: multiples of one of order 8, found by search."""

    def add(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
        (a, b), (c, e) = p, q
        k = D * a * c * b * e % P
        return ((a * e + c * b) * pow(1 + k, -1, P) % P, (b * e + a * c) * pow(1 - k, -1, P) % P)

    order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 100):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if (x * x - square) % P:
            x = x * pow(2, (P - 1) // 4, P) % P
        if (x * x - square) % P:
            continue
        found, base, left = (0, 1), (x, y), order
        while left:
            if left & 1:
                found = add(found, base)
            base, left = add(base, base), left >> 1
        multiples = [(0, 1)]
        for _ in range(7):
            multiples.append(add(multiples[-1], found))
        if len(set(multiples)) == 8:
            return {y for _, y in multiples}
    raise AssertionError("no point of order 8 found")


def test_keys_under_which_anybody_can_sign_are_refused_in_every_spelling() -> None:
    weak = points_of_small_order()
    assert len(weak) == 5
    spellings = {y for y in weak} | {y + P for y in weak if y + P < 2**255}
    for y in spellings:
        for sign_bit in (0, 1 << 255):
            with pytest.raises(InputError, match="anybody can sign"):
                parse_key_text(key_text((y | sign_bit).to_bytes(32, "little")))
    assert parse_key_text(ANNA.text) == ANNA.public_bytes


def test_a_document_is_held_against_its_policy() -> None:
    policy, users = clinic()
    check_users(policy, users)
    with pytest.raises(IntegrityError, match="is for the policy"):
        check_users(single_owner_policy(["x"], ["y"]), users)

    def refuse(old: str, new: str, *words: str) -> None:
        assert old in STAFF
        with pytest.raises(InputError) as caught:
            check_users(policy, parse_users(STAFF.replace(old, new), policy, "s.toml"))
        for word in words:
            assert word in str(caught.value)

    refuse('["technician"]', '["techncian"]', "s.toml, line 7", "did you mean 'technician'")
    refuse('["cloud"]', '["cloud", "custodian"]', "s.toml, line 8", "'cloud'", "custodian")
    refuse('["cloud"]', '["cloud", "doctor"]', "user 'cloud'", "evaluate", "doctor")
    twice = dataclasses.replace(users, users=(*users.users, UserEntry("eve", ())))
    with pytest.raises(InputError, match="user 'eve' is named twice"):
        check_users(policy, twice)


def test_separation_of_users_goes_over_inheritance() -> None:
    policy = parse_policy(CLINIC.replace("[roles.researcher]", "[roles.researcher]\n"
                          '[roles.boss]\ninherits = ["head"]\n[roles.head]\n'
                          'inherits = ["custodian"]'))  # fmt: skip
    staff = STAFF.replace("eve = []", 'eve = ["boss", "cloud"]')
    with pytest.raises(InputError) as caught:
        check_users(policy, parse_users(staff, policy, "s.toml"))
    assert "user 'eve'" in str(caught.value)
    assert "boss -> head -> custodian" in str(caught.value)


def test_a_signed_document_is_believed() -> None:
    users = parse_users(TEXT, POLICY)
    signed = sign_users(users, OFFICER)
    assert verify_users(signed, (OFFICER.public_key,)) == users
    assert verify_users(signed, (SECOND.public_key, OFFICER.public_key), 1) == users
    both = cosign(signed, SECOND, USERS_NAME, USERS_PAYLOAD_TYPE)
    assert verify_users(both, (OFFICER.public_key, SECOND.public_key), 2) == users


def test_other_signatures_are_refused() -> None:
    users = parse_users(TEXT, POLICY)
    signed = sign_users(users, OFFICER)
    with pytest.raises(IntegrityError, match="not trusted"):
        verify_users(signed, (STRANGER.public_key,))
    with pytest.raises(IntegrityError, match="1 of the 2 signatures"):
        verify_users(signed, (OFFICER.public_key, SECOND.public_key), 2)
    with pytest.raises(IntegrityError, match="not trusted"):
        verify_users(signed, ())
    # A statement of another kind, signed by the right key.
    other = sign(canonical_json(users_to_json(users)), OFFICER)
    with pytest.raises(IntegrityError):
        verify_users(other, (OFFICER.public_key,))
    forged = sign_users(users, OFFICER).replace(b"users+json", b"users+jsom")
    with pytest.raises(IntegrityError):
        verify_users(forged, (OFFICER.public_key,))
    with pytest.raises(IntegrityError):
        verify_users(b"x" * (9 << 20), (OFFICER.public_key,))


@settings(max_examples=200)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    signed = bytearray(sign_users(parse_users(TEXT, POLICY), OFFICER))
    place = data.draw(st.integers(0, len(signed) - 1))
    signed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        verify_users(bytes(signed), (OFFICER.public_key,))


@pytest.mark.parametrize(
    "change_",
    [
        {"version": 0},
        {"version": "7"},
        {"policy": "abc"},
        {"policy": None},
        {"extra": 1},
        {"not_after": "soon"},
        {"users": []},
        {"users": {"anna": ["doctor"]}},
        {"users": {"anna": {"roles": ["doctor"], "key": None}}},
    ],
)
def test_signed_nonsense_and_other_spellings_are_refused(change_: dict[str, object]) -> None:
    table = {**users_to_json(parse_users(TEXT, POLICY)), **change_}
    signed = sign(canonical_json(table), OFFICER, USERS_PAYLOAD_TYPE)
    with pytest.raises(IntegrityError):
        verify_users(signed, (OFFICER.public_key,))
    loose = json.dumps(users_to_json(parse_users(TEXT, POLICY)), indent=1).encode()
    with pytest.raises(IntegrityError, match="not spelt"):
        verify_users(sign(loose, OFFICER, USERS_PAYLOAD_TYPE), (OFFICER.public_key,))


def test_a_document_holds_for_its_time() -> None:
    users = parse_users(TEXT, POLICY)
    check_times(users, datetime(2025, 6, 1, tzinfo=UTC))
    check_times(users, datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(IntegrityError, match=r"version 7\) is valid from 2025-01-01"):
        check_times(users, datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC))
    with pytest.raises(IntegrityError, match="expired at 2026-01-01T00:00:00Z"):
        check_times(users, datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC))
    check_times(dataclasses.replace(users, not_before="", not_after=""))


def test_single_owner_users_have_the_roles_of_their_policy() -> None:
    policy = single_owner_policy(["x"], ["y"])
    users = single_owner_users(policy, {"owner": ANNA.public_bytes}, version=2)
    check_users(policy, users)
    assert users.of_key(ANNA.keyid) == UserEntry("owner", ("owner",), ANNA.public_bytes)
    assert users.version == 2


KEYS = [generate_identity("u").public_bytes for _ in range(4)]
names = st.text("abc. -_@+é", min_size=1, max_size=6).filter(lambda name: name == name.strip())
roles = st.lists(names, max_size=3, unique=True).map(tuple)
times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(
    lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[Policy, Users]:
    policy = single_owner_policy([draw(names)], ["y"])
    entries = draw(st.lists(st.tuples(names, roles), max_size=4, unique_by=lambda one: one[0]))
    keys = draw(st.permutations(KEYS))
    users = tuple(
        UserEntry(name, given, key if draw(st.booleans()) else None)
        for (name, given), key in zip(entries, keys, strict=False)
    )
    span = sorted(draw(st.lists(times, min_size=2, max_size=2, unique=True)))
    not_before, not_after = (end if draw(st.booleans()) else "" for end in span)
    return policy, Users(policy.digest, draw(st.integers(1, 2**53)), not_before, not_after, users)


@given(documents())
def test_documents_round_trip(case: tuple[Policy, Users]) -> None:
    policy, users = case
    assert users_from_json(users_to_json(users)) == users
    assert parse_users(users_to_toml(users), policy) == users
    assert verify_users(sign_users(users, OFFICER), (OFFICER.public_key,)) == users


def test_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("users") / "users.toml"
    path.write_text(TEXT)
    assert read_users(path, POLICY) == parse_users(TEXT, POLICY)
    with pytest.raises(InputError, match="cannot read"):
        read_users(path.with_name("none.toml"), POLICY)
