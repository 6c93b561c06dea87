"""Purposes and sessions: whoever sends or receives an envelope cannot choose them to get by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hecompile.access.decide import SEPARATED
from hecompile.access.identity import generate_identity
from hecompile.access.policy import PROGRAM, Action, Permission, Policy, Role
from hecompile.access.state import State
from hecompile.access.terms import Constraint
from hecompile.access.users import UserEntry, Users
from hecompile.errors import AccessDeniedError, IntegrityError
from hecompile.runtime.client import Client
from hecompile.runtime.envelope import read_header
from hecompile.runtime.header import new_session
from hecompile.runtime.inspection import Inspector
from hecompile.runtime.keycard import Role as KeyRole
from hecompile.runtime.keys import public_key
from tests.attacks.senders import IDENTITIES, Pieces, World, X, Y, make_world

EVE = generate_identity("eve")
POLICY = Policy(
    (Role("technician"), Role("doctor"), Role("evaluator")),
    (
        Permission("technician", (Action.ENCRYPT,), (X,)),
        Permission("technician", (Action.SUBMIT,), (X,), purposes=("care",)),
        Permission("doctor", (Action.DECRYPT,), (Y,)),
        Permission("evaluator", (Action.EVALUATE,), (PROGRAM,), purposes=("care",)),
    ),
    constraints=(Constraint("dynamic", ("technician", "doctor")),),
    purposes=("care", "research"),
)
USERS = Users(
    POLICY.digest,
    1,
    "",
    "",
    (
        UserEntry("eve", ("technician", "doctor"), EVE.public_bytes),
        UserEntry("cloud", ("evaluator",), IDENTITIES["cloud"].public_bytes),
    ),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), policy=POLICY, users=USERS)


@pytest.fixture
def world(base: World, tmp_path: Path) -> World:
    return replace(base, folder=tmp_path)


def sent(world: World, purpose: str = "care", **header: Any) -> bytes:
    """An envelope of eve's, with any further change of hers to its header."""
    key = public_key(world.ring.source(KeyRole.PUBLIC))
    client = Client(world.spec, key, identity=EVE, purpose=purpose)
    (data,) = client.encrypt({"x": [[1.0, 1.0, 1.0, 1.0]]})
    return Pieces.of(data).with_header(**header).joined(EVE)


def test_the_purpose_travels_signed_and_decides(world: World) -> None:
    data = sent(world)
    assert read_header(data).purpose == "care"
    assert world.gateway().check_input(data).user == "eve"
    (entry,) = world.decisions()
    assert (entry["decision"], entry["action"], entry["purpose"]) == ("allow", "submit", "care")


@pytest.mark.parametrize("purpose", ["", "research", "Care", "no such purpose"])
def test_another_purpose_is_denied_whatever_the_receiver_works_for(
    world: World, purpose: str
) -> None:
    with pytest.raises(AccessDeniedError, match="'eve' may not submit input:x"):
        world.gateway(purpose="care").check_input(sent(world, purpose))
    (entry,) = world.decisions()
    assert (entry["decision"], entry["purpose"]) == ("deny", purpose)


def test_nobody_but_the_sender_can_change_the_purpose(world: World) -> None:
    data = sent(world, "research")
    forged = Pieces.of(data).with_header(purpose="care").joined()
    with pytest.raises(IntegrityError, match="does not match its signature by user 'eve'"):
        world.gateway().check_input(forged)
    assert not world.decisions()


def test_what_the_gateway_signs_is_for_its_own_purpose(world: World) -> None:
    """Neither the sender's purpose nor one that a worker made up goes out in the gateway's name."""
    made = world.evaluator()
    made.purpose = "a worker's choice"
    evaluation = made.start(sent(world))
    assert evaluation.advance() is None
    output = evaluation.output()
    gateway = world.gateway(identity=IDENTITIES["cloud"], purpose="care")
    signed = gateway.sign(output, read_header(output))
    assert read_header(signed).purpose == "care"
    world.inspector().admit(read_header(signed), "the output")
    with pytest.raises(AccessDeniedError, match="'cloud' may not evaluate program"):
        world.inspector().admit(read_header(output), "the output")


def test_a_sender_s_session_does_not_get_round_separation(world: World) -> None:
    """Eve submits under a fresh session each time, then asks as a doctor on the same day."""
    for session in (new_session(), "0" * 32):
        world.gateway().check_input(sent(world, session=session))
    assert world.gate().used("eve") == {"technician"}
    with pytest.raises(AccessDeniedError, match="'eve' may not decrypt output:y"):
        world.gate().require("eve", Action.DECRYPT, Y)
    assert world.decisions()[-1]["rule"] == SEPARATED


def test_an_envelope_of_long_ago_uses_no_role(world: World) -> None:
    """Somebody who kept it sends it again, so that eve could not be a doctor today."""
    past = {"created": "2025-01-01T00:00:00Z", "expires": "2025-01-01T01:00:00Z"}
    with pytest.raises(IntegrityError, match="has expired"):
        world.gateway().check_input(sent(world, **past))
    assert world.gate().used("eve") == frozenset()
    world.gate().require("eve", Action.DECRYPT, Y)


def test_who_acted_as_a_doctor_sends_nothing_that_day(world: World) -> None:
    world.gate().require("eve", Action.DECRYPT, Y)
    with pytest.raises(AccessDeniedError, match="'eve' may not submit"):
        world.gateway().check_input(sent(world))
    assert world.decisions()[-1]["rule"] == SEPARATED


def test_a_receiver_may_name_a_session_of_its_own(world: World) -> None:
    gate = world.gate()
    gate.require("eve", Action.DECRYPT, Y)
    inspector = Inspector(world.manifest, USERS, State(world.state), gate, session="night shift")
    header = read_header(sent(world))
    inspector.admit(header, "the input")
    assert gate.used("eve", "night shift") == {"technician"}
