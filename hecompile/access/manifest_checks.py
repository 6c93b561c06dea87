"""What a manifest claims, derived again from its own contents: at writing and at each reading."""

from __future__ import annotations

import math
from typing import Final

from hecompile.access.manifest import Manifest, Security
from hecompile.access.proof import ProgramFacts, check_policy
from hecompile.errors import CompileError, InputError, IntegrityError
from hecompile.numeric.parameters import Parameters

_FRAMING_BYTES: Final = 64 << 10
"""What a serialised ciphertext may take beside twice its residues."""


def check_manifest(manifest: Manifest) -> None:
    """Derive the facts of a manifest again and prove its policy (S1 to S6, and S8).

    That Galois steps granted are those used (S7) shows only where the program is read.

    Raises:
        IntegrityError: A fact is not what follows from the others, or the policy breaks a rule.
    """
    parameters = _parameters(manifest)
    _check_ports(manifest, parameters)
    if any(not 0 < step < parameters.slots for step in manifest.galois_steps):
        raise _wrong(f"a rotation lies outside the {parameters.slots} slots")
    _check_flows(manifest)
    _check_releases(manifest)
    _check_policy(manifest)


def facts_of(manifest: Manifest) -> ProgramFacts:
    """What a manifest says of its program, for the proofs of its policy.

    Raises:
        InputError: Its parameters are malformed.
        CompileError: They cannot be used.
    """
    parameters = Parameters.from_json(dict(manifest.parameters))
    return ProgramFacts(
        inputs=tuple(port.name for port in manifest.io.inputs),
        outputs=tuple(port.name for port in manifest.io.outputs),
        refreshes=manifest.refresh.count,
        mask_bits=manifest.refresh.mask_bits if manifest.refresh.count else None,
        # Before the files are listed it is not known which parts there are.
        encrypted_model=manifest.encrypted_model if manifest.files else None,
        flows=manifest.flows,
        galois_steps_granted=manifest.galois_steps,
        security=(parameters.poly_modulus_degree, parameters.modulus_bits),
        releases=manifest.releases,
        shapes={port.name: port.shape for port in manifest.io.inputs},
    )


def _parameters(manifest: Manifest) -> Parameters:
    try:
        parameters = Parameters.from_json(dict(manifest.parameters))
        security = Security.of(parameters)
    except (InputError, CompileError) as error:
        raise IntegrityError(f"the manifest's parameters cannot be used: {error}") from error
    if security != manifest.security:
        raise _wrong(
            f"its security is stated as {manifest.security}, but its parameters give {security}"
        )
    return parameters


def _check_ports(manifest: Manifest, parameters: Parameters) -> None:
    for port in (*manifest.io.inputs, *manifest.io.outputs):
        if port.level > parameters.levels:
            raise _wrong(
                f"'{port.name}' is at level {port.level} of parameters with {parameters.levels}"
            )
        most = 2 * parameters.ciphertext_bytes(port.level) + _FRAMING_BYTES
        if port.byte_limit > most:
            raise _wrong(
                f"'{port.name}' may bring ciphertexts of {port.byte_limit} bytes, more than the "
                f"{most} that one of its level can have"
            )


def _check_flows(manifest: Manifest) -> None:
    policy = manifest.policy
    named = [flow.output for flow in manifest.flows]
    outputs = [port.name for port in manifest.io.outputs]
    if named != outputs:
        raise _wrong(
            f"its flows are of {', '.join(named) or 'no output'}, where its outputs are "
            f"{', '.join(outputs)}"
        )
    fields = {label for one in policy.labels for label in one.labels}
    trained = set(policy.model.labels) if policy.model is not None else set()
    for flow in manifest.flows:
        strange = (set(flow.labels) - fields) | (set(flow.weights) - trained)
        if strange:
            raise _wrong(
                f"{', '.join(sorted(strange))} flows into output '{flow.output}', but its policy "
                "gives no input and no training set that label"
            )


def _check_releases(manifest: Manifest) -> None:
    elements = {port.name: math.prod(port.shape) for port in manifest.io.outputs}
    named = [plan.output for plan in manifest.releases]
    if named != [name for name in elements if name in named]:
        raise _wrong("its releases must name outputs, each once, in order")
    for plan in manifest.releases:
        if plan.values < elements[plan.output]:
            raise _wrong(
                f"output '{plan.output}' has {elements[plan.output]} values, and "
                f"{plan.values} of them are flooded"
            )


def _check_policy(manifest: Manifest) -> None:
    try:
        check_policy(manifest.policy, facts_of(manifest))
    except (InputError, CompileError) as error:
        raise IntegrityError(f"the manifest's policy cannot be enforced: {error}") from error


def _wrong(what: str) -> IntegrityError:
    return IntegrityError(f"the manifest contradicts itself: {what}; compile the model again")
