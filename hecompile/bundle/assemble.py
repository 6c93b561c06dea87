"""The contents of a bundle: which files a finished program becomes, and its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hecompile import __version__
from hecompile.access.labels import Flow
from hecompile.access.manifest import (
    IoContract,
    Manifest,
    Port,
    RefreshInfo,
    Security,
    Signers,
    Succession,
    Versions,
)
from hecompile.access.policy import Policy, single_owner_policy
from hecompile.access.policy_io import read_policy
from hecompile.access.proof import ProgramFacts, check_policy
from hecompile.access.release_plan import ReleasePlan
from hecompile.access.times import utc_now
from hecompile.access.users import Users
from hecompile.backends import find_backend
from hecompile.bundle.layout import CONSTANTS_FILE, REPORT_FILE, SPEC_FILE
from hecompile.ir import he_ops, tensor_ops
from hecompile.ir.program import Program
from hecompile.ir.public import has_weights, public_form
from hecompile.npz import npz_bytes
from hecompile.report import Report
from hecompile.runtime.context import library_versions
from hecompile.runtime.evaluator import galois_steps
from hecompile.runtime.model_weights import OWNER_FILE, owner_bytes
from hecompile.runtime.serial import ciphertext_limit
from hecompile.runtime.spec import CipherSpec, ClientSpec
from hecompile.runtime.spec_json import spec_to_json


@dataclass(frozen=True)
class PolicyChoice:
    """The policy that applies, and what is known of the model before it is compiled."""

    policy: Policy
    facts: ProgramFacts

    def foresee(self, users: Users | None, flows: tuple[Flow, ...]) -> None:
        """Hold the policy and its users against what flows where, before the long search.

        Raises:
            InputError: as `check`.
        """
        check_policy(self.policy, replace(self.facts, flows=flows), users)

    def check(
        self,
        program: Program,
        users: Users | None = None,
        flows: tuple[Flow, ...] | None = None,
        releases: tuple[ReleasePlan, ...] | None = None,
    ) -> ProgramFacts:
        """Hold the policy against the finished program, its refreshes included.

        Args:
            program: The encrypted program.
            users: Who has which role; None where that is said later.
            flows: The labels that flow into each output; None where they are not known.
            releases: How outputs are published; None where that is not known.

        Returns:
            What is known of the finished program.

        Raises:
            InputError: naming the offender, where it stands and the remedy.
        """
        refreshes = program.select(he_ops.Refresh)
        parameters = program.parameters
        facts = replace(
            self.facts,
            refreshes=len({op.group for op in refreshes}),
            mask_bits=min((op.mask_bits for op in refreshes), default=None),
            encrypted_model=has_weights(program),
            flows=flows,
            galois_steps_used=galois_steps(program),
            security=(parameters.poly_modulus_degree, parameters.modulus_bits)
            if parameters is not None
            else None,
            releases=releases,
        )
        check_policy(self.policy, facts, users)
        return facts


def prepare_policy(
    policy: Policy | str | Path | None,
    model: Program,
    *,
    encrypt_model: bool = False,
    unmasked: bool = False,
) -> PolicyChoice:
    """Read the policy (or build the single-owner one) and check it against the model's names.

    Args:
        policy: The policy, the path of one, or None for the built-in one.
        model: The model's tensor program.
        encrypt_model: Whether its weights will be encrypted.
        unmasked: Whether refreshes will have no masks, or such of too few bits.

    Raises:
        InputError: the policy cannot be read or does not fit the model.
    """
    inputs = tuple(op.label for op in model.select(tensor_ops.Input))
    outputs = tuple(op.label for op in model.select(tensor_ops.Output))
    if policy is None:
        policy = single_owner_policy(inputs, outputs, encrypted_model=encrypt_model)
    elif not isinstance(policy, Policy):
        policy = read_policy(policy)
    # A pass that the user brings may encrypt weights too, so that "no" is known only at the end.
    facts = ProgramFacts(
        inputs,
        outputs,
        mask_bits=0 if unmasked else None,
        encrypted_model=encrypt_model or None,
        shapes={op.label: op.dims for op in model.select(tensor_ops.Input)},
    )
    check_policy(policy, facts)
    return PolicyChoice(policy, facts)


@dataclass(frozen=True)
class Terms:
    """What a manifest says beside the program and its policy.

    Attributes:
        signers: Who must sign it, and who signs users documents.
        succession: Where it stands among its versions; None for the first of a new line.
        not_before: First second of its validity, RFC 3339 in UTC; empty for ever since.
        not_after: Last second of it; empty for ever.
    """

    signers: Signers = field(default_factory=Signers)
    succession: Succession | None = None
    not_before: str = ""
    not_after: str = ""


def bundle_files(
    program: Program,
    spec: ClientSpec,
    policy: Policy,
    report: Report,
    backend: str = "tenseal",
    *,
    flows: tuple[Flow, ...] = (),
    releases: tuple[ReleasePlan, ...] = (),
    terms: Terms | None = None,
) -> tuple[dict[str, bytes], Manifest]:
    """Write out every file of a bundle, and the manifest without their digests.

    Encrypted weights go to the model owner's part alone; all else is of the evaluator's form of
    the program.
    """
    public = public_form(program)
    files = {
        SPEC_FILE: spec_to_json(spec),
        CONSTANTS_FILE: npz_bytes({s: c.array for s, c in public.constants.items()}),
        REPORT_FILE: report.to_text().encode("utf-8"),
        **find_backend(backend).emit(public),
    }
    if has_weights(program):
        files[OWNER_FILE] = owner_bytes(program)
    versions = library_versions()
    terms = terms if terms is not None else Terms()
    succession = terms.succession or Succession.first()
    manifest = Manifest(
        created=utc_now(),
        program=program.name,
        parameters=spec.parameters.to_json(),
        io=_contract(spec),
        galois_steps=report.estimate.rotation_steps,
        policy=policy,
        refresh=RefreshInfo(report.estimate.refreshes, report.mask_bits),
        predicted_error=report.predicted_error,
        versions=Versions(__version__, versions.tenseal, np.__version__, versions.seal),
        security=Security.of(spec.parameters),
        lineage=succession.lineage,
        version=succession.version,
        supersedes=succession.supersedes,
        flows=flows,
        releases=releases,
        signers=terms.signers,
        not_before=terms.not_before,
        not_after=terms.not_after,
    )
    return files, manifest


def _contract(spec: ClientSpec) -> IoContract:
    def port(label: str, dims: tuple[int, ...], ciphertexts: tuple[CipherSpec, ...]) -> Port:
        level = max(c.level for c in ciphertexts)
        limit = ciphertext_limit(spec.parameters, level)
        return Port(label, dims, len(ciphertexts), limit, level)

    return IoContract(
        tuple(port(i.label, i.dims, i.ciphertexts) for i in spec.inputs),
        tuple(port(o.label, o.dims, o.ciphertexts) for o in spec.outputs),
    )
