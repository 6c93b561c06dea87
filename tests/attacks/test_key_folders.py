"""Folders of public and evaluation keys: whose keys are used with a bundle, and which are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hecompile.access.identity import Identity, generate_identity
from hecompile.access.key_cards import (
    CLOCK_TOLERANCE,
    KEY_PAYLOAD_TYPE,
    SIGNATURE_FILE,
    KeyInspector,
    sign_card,
)
from hecompile.access.key_state import KeyState
from hecompile.access.manifest import Manifest
from hecompile.access.policy import (
    KEY_EVALUATION,
    KEY_PUBLIC,
    KEY_SECRET,
    Action,
    Permission,
    Policy,
    single_owner_policy,
)
from hecompile.access.policy import Role as PolicyRole
from hecompile.access.signing import PAYLOAD_TYPE, cosign, sign
from hecompile.access.users import UserEntry, Users
from hecompile.errors import AccessDeniedError, IntegrityError, UsageError
from hecompile.runtime.key_folders import ExactCard, read_card, signatures_beside
from hecompile.runtime.keycard import KeyCard, Role
from hecompile.runtime.keys import load_evaluation_keys, load_public_key, write_keys
from tests.attacks.senders import forbid_seal
from tests.encrypted.runtime_programs import SMALL
from tests.unit.manifests import MANIFEST

PROGRAM = "a" * 64
STEPS = (1,)
KEYS = (KEY_PUBLIC, KEY_EVALUATION)
HANDED = (Role.PUBLIC, Role.EVALUATION)

HOSPITAL = Policy(
    tuple(map(PolicyRole, ("custodian", "officer", "clerk", "nurse"))),
    (
        Permission("custodian", (Action.HOLD,), (KEY_SECRET, *KEYS)),
        Permission("officer", (Action.REGISTER, Action.ROTATE), KEYS),
        Permission("clerk", (Action.REGISTER,), KEYS),
    ),
)
NAMES = {"vault": "custodian", "sofia": "officer", "carl": "clerk", "nora": "nurse"}
IDENTITIES = {name: generate_identity(name) for name in NAMES}
VAULT, SOFIA, CARL, NORA = IDENTITIES.values()
EVE = generate_identity("eve")

Change = Callable[[Path], None]


def users_of(policy: Policy, roles: Mapping[str, str]) -> Users:
    entries = (UserEntry(n, (r,), IDENTITIES[n].public_bytes) for n, r in roles.items())
    return Users(policy.digest, 1, "", "", tuple(entries))


@dataclass(frozen=True)
class Site:
    """A bundle's documents, and what one party remembers of keys."""

    manifest: Manifest
    users: Users
    state: KeyState

    @classmethod
    def of(cls, state: Path, roles: Mapping[str, str], policy: Policy = HOSPITAL) -> Site:
        return cls(replace(MANIFEST, policy=policy), users_of(policy, roles), KeyState(state))

    def inspector(self, now: datetime | None = None) -> KeyInspector:
        clock = None if now is None else (lambda: now)
        return KeyInspector(self.manifest, self.users, self.state, clock)

    def load(self, keys: Path, role: Role) -> None:
        """Load a folder as its party does."""
        if role is Role.PUBLIC:
            load_public_key(keys, SMALL, PROGRAM, self.manifest.digest, self.inspector())
        else:
            load_evaluation_keys(
                keys, SMALL, PROGRAM, manifest=self.manifest.digest, cards=self.inspector()
            )

    def make(self, folder: Path, by: Identity | None = VAULT) -> Path:
        write_keys(folder, SMALL, STEPS, PROGRAM, manifest=self.manifest.digest, identity=by)
        return folder

    def register(self, keys: Path, by: Identity, *roles: Role) -> None:
        for role in roles or HANDED:
            place = keys / role.value
            _, claim = read_card(place, role)
            added = self.inspector().register(claim, signatures_beside(place), by)
            (place / SIGNATURE_FILE).write_bytes(added)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys that the vault made, one set after another; and those of an attacker."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HECOMPILE_HOME", str(folder / "home"))
        site = Site.of(folder / "keys.db", NAMES)
        for name in ("first", "second"):
            site.make(folder / name)
            shutil.copytree(folder / name, folder / f"{name}-registered")
        site.make(folder / "evil", EVE)
        site.make(folder / "unsigned", None)
        for name in ("first", "second"):
            site.register(folder / f"{name}-registered", SOFIA)
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site.of(tmp_path / "keys.db", NAMES)


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    """Registered keys, to be attacked."""
    return Path(shutil.copytree(made / "first-registered", tmp_path / "keys"))


def refused(site: Site, keys: Path, role: Role, message: str) -> None:
    """Whoever loads these keys refuses them before SEAL or a key file is touched."""
    with pytest.MonkeyPatch.context() as patch:
        forbid_seal(patch)
        patch.setattr(
            "hecompile.runtime.key_folders._read_checked",
            lambda *_: pytest.fail("a key file was read"),
        )
        with pytest.raises(IntegrityError, match=message):
            site.load(keys, role)


@pytest.mark.parametrize("role", HANDED)
def test_registered_keys_are_loaded_again_and_again(keys: Path, site: Site, role: Role) -> None:
    for _ in range(2):
        site.load(keys, role)
    seen = site.state.newest(site.manifest.lineage, role.value)
    assert seen is not None
    assert seen.key_id == json.loads((keys / role.value / KeyCard.FILE).read_text())["key_id"]


@pytest.mark.parametrize("role", HANDED)
@pytest.mark.parametrize("source", ["evil", "unsigned"])
def test_an_attackers_own_keys_are_refused(
    made: Path, keys: Path, site: Site, role: Role, source: str
) -> None:
    shutil.rmtree(keys / role.value)
    shutil.copytree(made / source / role.value, keys / role.value)
    told = {"evil": "which is no user's", "unsigned": "are not signed"}
    refused(site, keys, role, told[source])


@pytest.mark.parametrize("role", HANDED)
def test_an_attackers_keys_under_signatures_of_others_are_refused(
    made: Path, keys: Path, site: Site, role: Role
) -> None:
    signature = (keys / role.value / SIGNATURE_FILE).read_bytes()
    shutil.rmtree(keys / role.value)
    shutil.copytree(made / "evil" / role.value, keys / role.value)
    (keys / role.value / SIGNATURE_FILE).write_bytes(signature)
    refused(site, keys, role, r"signs another key\.json")


def other_folder(keys: Path) -> None:
    shutil.copy(keys / "evaluation" / SIGNATURE_FILE, keys / "public" / SIGNATURE_FILE)


def no_signature(keys: Path) -> None:
    (keys / "public" / SIGNATURE_FILE).unlink()


def changed_card(keys: Path) -> None:
    path = keys / "public" / KeyCard.FILE
    path.write_bytes(path.read_bytes().replace(b'"seal"', b' "seal"', 1))


def changed_signature(keys: Path) -> None:
    path = keys / "public" / SIGNATURE_FILE
    document = json.loads(path.read_text())
    first, second = document["signatures"]
    first["sig"], second["sig"] = second["sig"], first["sig"]
    path.write_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n")


def no_signatures(keys: Path) -> None:
    path = keys / "public" / SIGNATURE_FILE
    document = json.loads(path.read_text()) | {"signatures": []}
    path.write_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n")


def another_kind(keys: Path) -> None:
    card = (keys / "public" / KeyCard.FILE).read_bytes()
    (keys / "public" / SIGNATURE_FILE).write_bytes(sign(card, VAULT.key, PAYLOAD_TYPE))


def huge(keys: Path) -> None:
    with (keys / "public" / SIGNATURE_FILE).open("ab") as stream:
        stream.truncate(1 << 30)


def signed_by(*signers: Identity) -> Change:
    def change(keys: Path) -> None:
        card = (keys / "public" / KeyCard.FILE).read_bytes()
        first, *others = signers
        data = sign_card(card, first)
        for other in others:
            data = cosign(data, other.key, "it", KEY_PAYLOAD_TYPE)
        (keys / "public" / SIGNATURE_FILE).write_bytes(data)

    return change


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (other_folder, r"signs another key\.json"),
        (no_signature, "are not signed"),
        (changed_card, r"signs another key\.json"),
        (changed_signature, "was changed after signing"),
        (no_signatures, "lacks the signature of whoever made the keys"),
        (another_kind, "not a signed document"),
        (huge, "too large"),
        (signed_by(NORA), "'nora', who may neither hold key:secret nor"),
        (signed_by(VAULT, NORA), "'nora', who may neither hold key:secret nor"),
        (signed_by(VAULT, SOFIA, EVE), "no user's in version 1 of the users document"),
        (signed_by(SOFIA), "lacks the signature of whoever made the keys"),
        (signed_by(VAULT), "are not registered: .* hecompile register"),
    ],
)
def test_folders_that_nobody_vouches_for_are_refused(
    keys: Path, site: Site, attack: Change, message: str
) -> None:
    attack(keys)
    refused(site, keys, Role.PUBLIC, message)
    assert site.state.newest(site.manifest.lineage, "public") is None


def test_every_changed_byte_of_card_and_signature_is_refused(keys: Path, site: Site) -> None:
    for name in (KeyCard.FILE, SIGNATURE_FILE):
        path = keys / "public" / name
        data = path.read_bytes()
        for place in range(0, len(data), 7):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            refused(site, keys, Role.PUBLIC, r"\w")
        path.write_bytes(data)


def test_a_key_file_changed_under_a_right_signature_is_refused(keys: Path, site: Site) -> None:
    (keys / "public" / "public.key").write_bytes(b"x" * 100)
    with pytest.MonkeyPatch.context() as patch:
        forbid_seal(patch)
        with pytest.raises(IntegrityError, match="was changed: it does not match"):
            site.load(keys, Role.PUBLIC)


def test_keys_signed_for_another_bundle_are_refused(keys: Path, site: Site) -> None:
    other = replace(site, manifest=replace(site.manifest, program="another"))
    refused(other, keys, Role.PUBLIC, "are for the bundle of manifest")


@pytest.mark.parametrize("role", HANDED)
def test_older_keys_are_refused_once_newer_ones_were_seen(
    made: Path, keys: Path, site: Site, role: Role
) -> None:
    site.load(keys, role)
    site.load(made / "second-registered", role)
    refused(site, keys, role, "were rolled back")
    site.load(made / "second-registered", role)


def test_keys_are_replaced_by_a_user_who_may_rotate(
    made: Path, keys: Path, site: Site, tmp_path: Path
) -> None:
    newer = Path(shutil.copytree(made / "second", tmp_path / "newer"))
    fresh = replace(site, state=KeyState(tmp_path / "clerk.db"))
    fresh.register(newer, CARL)
    site.load(keys, Role.PUBLIC)
    refused(site, newer, Role.PUBLIC, "nobody signed these who may rotate key:public")
    _, claim = read_card(newer / "public", Role.PUBLIC)
    asked = [(Action.REGISTER, KEY_PUBLIC), (Action.ROTATE, KEY_PUBLIC)]
    assert list(site.inspector().wanted(claim)) == asked
    assert list(fresh.inspector().wanted(claim)) == asked[:1]
    site.register(newer, SOFIA, Role.PUBLIC)
    site.load(newer, Role.PUBLIC)


def test_keys_of_the_future_are_refused(keys: Path, site: Site) -> None:
    _, claim = read_card(keys / "public", Role.PUBLIC)
    signatures = signatures_beside(keys / "public")
    before = datetime.now(UTC) - timedelta(days=1)
    with pytest.raises(IntegrityError, match="in the future"):
        site.inspector(before).check(claim, signatures)
    site.inspector(claim.created - CLOCK_TOLERANCE / 2).check(claim, signatures)


def test_only_what_the_holder_signed_is_registered(made: Path, site: Site, tmp_path: Path) -> None:
    for name in ("evil", "unsigned"):
        copy = Path(shutil.copytree(made / name, tmp_path / name))
        before = sorted((p, p.read_bytes()) for p in copy.rglob("*.sig"))
        with pytest.raises(IntegrityError, match=r"are not signed|lacks the signature"):
            site.register(copy, SOFIA)
        assert sorted((p, p.read_bytes()) for p in copy.rglob("*.sig")) == before


def test_who_may_not_register_makes_no_key_registered(
    made: Path, site: Site, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made / "first", tmp_path / "copy"))
    with pytest.raises(IntegrityError, match="'nora', who may neither"):
        site.register(copy, NORA)
    with pytest.raises(IntegrityError, match="are not registered"):
        site.register(copy, VAULT)


def test_a_registrar_who_left_is_replaced(keys: Path, tmp_path: Path) -> None:
    without = Site.of(tmp_path / "other.db", {"vault": "custodian", "carl": "clerk"})
    refused(without, keys, Role.PUBLIC, "no user's in version")
    without.register(keys, CARL)
    without.load(keys, Role.PUBLIC)


def test_a_single_owner_needs_one_signature(tmp_path: Path) -> None:
    policy = single_owner_policy(["x"], ["y"])
    site = Site.of(tmp_path / "keys.db", {"vault": "owner", "nora": "evaluator"}, policy)
    one, two = (site.make(tmp_path / name) for name in ("keys1", "keys2"))
    for role in HANDED:
        site.load(one, role)
        site.load(two, role)
        refused(site, one, role, "were rolled back")


def test_keys_of_a_bundle_are_not_loaded_without_its_users(keys: Path, site: Site) -> None:
    digest = site.manifest.digest
    with pytest.raises(UsageError, match="keys of a bundle are signed"):
        load_public_key(keys, SMALL, PROGRAM, digest)
    with pytest.raises(UsageError, match="keys of a bundle are signed"):
        load_evaluation_keys(keys, SMALL, PROGRAM, manifest=digest)
    with pytest.raises(AccessDeniedError, match="no users document"):
        KeyInspector(site.manifest, None)


def test_keys_exchanged_after_they_were_looked_at_are_refused(made: Path, keys: Path) -> None:
    source, _ = read_card(keys / "public", Role.PUBLIC)
    exact = ExactCard(source.digest)
    digest = source.card.manifest
    load_public_key(keys, SMALL, PROGRAM, digest, exact)
    with pytest.raises(IntegrityError, match="were exchanged"):
        load_public_key(made / "second-registered", SMALL, PROGRAM, digest, exact)
