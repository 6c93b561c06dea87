"""`hecompile evaluate`: the evaluator's part, in one go or from refresh to refresh."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import (
    PATH,
    Access,
    access_options,
    bundle_argument,
    check_output,
    json_option,
    keys_option,
    limit_options,
    output_option,
    weights_cache_option,
    workers_option,
)
from hecompile.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from hecompile.access.identity import Identity
    from hecompile.cli.door import Door
    from hecompile.ir.program import Program
    from hecompile.runtime.allowance import Allowance
    from hecompile.runtime.crew import Outcome
    from hecompile.runtime.gateway import Gateway
    from hecompile.runtime.guard import PolicyGuard
    from hecompile.runtime.header import Header
    from hecompile.runtime.inspection import Inspector
    from hecompile.runtime.key_folders import ExactCard
    from hecompile.runtime.processes import EvaluatorProcess
    from hecompile.runtime.program_files import Server
    from hecompile.runtime.spec import ClientSpec

REQUEST_SUFFIX = ".request"
STATE_SUFFIX = ".state"


@click.command("evaluate")
@bundle_argument
@keys_option("evaluation")
@click.option("--input", "encrypted", type=PATH, metavar="IN.hect", help="Encrypted samples.")
@click.option("--resume", type=PATH, metavar="STATE", help="Go on where this state stopped.")
@click.option("--response", type=PATH, metavar="RESPONSE", help="The key holder's answer to it.")
@click.option("--model", type=PATH, metavar="MODEL.hew", help="Weights, where they are encrypted.")
@click.option(
    "--profile",
    type=PATH,
    metavar="PROFILE",
    help="Write CPU seconds by operation and level there, for hecompile inspect --measured.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Most seconds by the clock for loading, and for the evaluations together; by default one"
    " hour for each evaluation.",
)
@output_option("The encrypted outputs.", True, "OUT.hect")
@workers_option
@weights_cache_option
@limit_options
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    encrypted: Path | None,
    resume: Path | None,
    response: Path | None,
    model: Path | None,
    profile: Path | None,
    timeout: float | None,
    output: Path,
    workers: int,
    weights_cache: Path | None,
    allowed: Allowance,
    access: Access,
    as_json: bool,
) -> None:
    """Compute on encrypted samples with the evaluation keys.

    Envelopes are looked at here: who signed, whether that user may, and whether it was sent before;
    all of a file are taken, or none if one is refused. A process of its own, with limits and
    without the identity of USER, computes; its results are signed here.

    Where the program needs the key holder, OUT.hect.request and OUT.hect.state are written instead
    of OUT.hect. Send the request to `hecompile refresh`, then go on with --resume OUT.hect.state
    --response RESPONSE, which removes the state and the request that it used. The state holds the
    masks: it is private to the evaluator.
    """
    begins = encrypted is not None and resume is None and response is None
    goes_on = encrypted is None and resume is not None and response is not None
    if not begins and not goes_on:
        raise UsageError("give either --input, or --resume together with --response")
    _one_thread()
    from hecompile.runtime.wants import EVALUATION

    door = access.door(bundle)
    guard = access.guard(door)
    identity = guard.acting(EVALUATION)
    check_output(output)
    check_output(profile)
    front = _Front.of(door, guard, access.inspector(guard), identity, keys, model)
    items, headers = front.looked_at(encrypted or resume or output, response)
    # A profile is one process's.
    workers = 1 if profile is not None else workers
    process = front.process(
        items,
        workers=workers,
        profile=profile is not None,
        weights_cache=weights_cache,
        allowed=allowed,
        timeout=timeout,
    )
    with process:
        # Taken once the process is ready, so that one that cannot start uses nothing up.
        front.gateway.take(*headers)
        outcomes = process.advance(items)
    signed = [front.signed(*pair) for pair in zip(outcomes, headers, strict=True)]
    _finish(signed, _Files.beside(output), resume, as_json)
    if profile is not None and process.profile is not None:
        from hecompile.costs import write_profile

        write_profile(profile, process.profile)


def _one_thread() -> None:
    """Keep matrix products to one thread: the processors belong to whole processes.

    Numerical libraries read it when they are imported, so nothing is done where they are.
    """
    if "numpy" not in sys.modules:
        for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.setdefault(name, "1")


@dataclass(frozen=True)
class _Front:
    """What stands before the evaluating process, and does not compute.

    Attributes:
        server: The evaluator's files.
        program: The program in them.
        spec: What is known of it.
        gateway: Looks at envelopes, and signs.
        keys: Folder of the evaluation keys.
        card: The card of the keys, which was looked at.
        key_id: Identifier of the key.
        model: Envelope of encrypted weights that was let pass, if there are some.
    """

    server: Server
    program: Program
    spec: ClientSpec
    gateway: Gateway
    keys: Path
    card: ExactCard
    key_id: str
    model: bytes | None

    @classmethod
    def of(
        cls,
        door: Door,
        guard: PolicyGuard,
        inspector: Inspector,
        identity: Identity,
        keys: Path,
        model: Path | None,
    ) -> _Front:
        """Read what is needed of a bundle, and look at the model's envelope."""
        from hecompile.access.key_cards import KeyInspector
        from hecompile.runtime.bundle_parts import read_program, read_server, read_spec
        from hecompile.runtime.gateway import Gateway
        from hecompile.runtime.inspection import lifetime_of
        from hecompile.runtime.key_folders import ExactCard, open_folder
        from hecompile.runtime.keycard import Role
        from hecompile.runtime.model_weights import check_model, read_model_file
        from hecompile.runtime.secret_search import check_handed_over

        check_handed_over(keys, Role.EVALUATION)
        files = door.files()
        if files.has_owners_part:
            console.warn(
                "this bundle holds the model's weights in the clear; give the evaluator the copy "
                "that 'hecompile export' writes"
            )
        spec = read_spec(files)
        program = read_program(files, spec)
        cards = KeyInspector(door.manifest, door.users)
        source = open_folder(
            keys, Role.EVALUATION, spec.parameters, spec.program, spec.manifest, cards
        )
        key_id = source.card.key_id
        data = read_model_file(model, program) if model is not None else None
        check_model(data, program, key_id, spec.manifest, inspector)
        gateway = Gateway(spec, key_id, identity, inspector, lifetime_of(guard), guard.purpose)
        looked_at = ExactCard(source.digest)
        return cls(read_server(files), program, spec, gateway, keys, looked_at, key_id, data)

    def looked_at(
        self, source: Path, response: Path | None
    ) -> tuple[list[tuple[bytes, bytes]], list[Header]]:
        """Encrypted samples, or states and the answers that they waited for, all let pass.

        Each is let pass before the next is read.
        """
        from hecompile.cli.hectfile import read_parts
        from hecompile.runtime.checkpoint import waiting_session
        from hecompile.runtime.envelope import envelope_limit

        if response is None:
            inputs = envelope_limit(self.spec.parameters, self.spec.input_ciphertexts)
            passed = list(self.gateway.check_inputs(read_parts(source, inputs)))
            return [(part, b"") for part, _ in passed], [header for _, header in passed]
        limits = [envelope_limit(self.spec.parameters, r.response) for r in self.spec.refreshes]
        waiting, answers = read_parts(source), read_parts(response, max(limits, default=0))
        if answers.count != waiting.count:
            raise IntegrityError(
                f"{response} answers {answers.count} evaluations, where {source} holds"
                f" {waiting.count}"
            )
        states = list(waiting)
        sessions = [waiting_session(s, self.spec.program, self.key_id) for s in states]
        passed = list(self.gateway.check_responses(answers, sessions))
        items = [(state, answer) for state, (answer, _) in zip(states, passed, strict=True)]
        return items, [header for _, header in passed]

    def process(
        self,
        items: Sequence[tuple[bytes, bytes]],
        *,
        workers: int,
        profile: bool,
        weights_cache: Path | None,
        allowed: Allowance,
        timeout: float | None,
    ) -> EvaluatorProcess:
        """The process that computes, with its limits."""
        from hecompile.runtime.inspection import OpenInspector
        from hecompile.runtime.processes import EvaluatorProcess, Tasks
        from hecompile.runtime.sandbox import WALL_SECONDS

        sent = [self.model or b"", *(part for item in items for part in item)]
        alone = len(items) == 1
        return EvaluatorProcess(
            self.server.program,
            self.server.constants,
            self.spec,
            self.keys,
            model=self.model,
            memory_limit=allowed.weights,
            timeout=timeout if timeout is not None else WALL_SECONDS * len(items),
            progress=console.Progress(),
            workers=workers if alone else 1,
            weights_cache=weights_cache,
            inspector=OpenInspector(),
            limits=allowed.limits(self.program, sent, len(items)),
            tasks=Tasks(1 if alone else workers, profile),
            cards=self.card,
        )

    def signed(self, outcome: Outcome, of: Header) -> Outcome:
        """An outcome whose output or request is signed."""
        if outcome.output:
            return replace(outcome, output=self.gateway.sign(outcome.output, of))
        return replace(outcome, request=self.gateway.sign(outcome.request, of))


@dataclass(frozen=True)
class _Files:
    """Where the output goes, or what stands for it meanwhile."""

    output: Path
    request: Path
    state: Path

    @classmethod
    def beside(cls, output: Path) -> _Files:
        return cls(
            output,
            output.with_name(f"{output.name}{REQUEST_SUFFIX}"),
            output.with_name(f"{output.name}{STATE_SUFFIX}"),
        )


def _finish(
    outcomes: Sequence[Outcome], files: _Files, resumed: Path | None, as_json: bool
) -> None:
    from hecompile.cli.hectfile import write_parts

    # The program has no branches: every evaluation stops at the same refreshes.
    if not outcomes[0].output:
        # The state first: a request whose masks are lost could not be used.
        write_parts(files.state, [outcome.state for outcome in outcomes], 0o600)
        written = write_parts(files.request, [outcome.request for outcome in outcomes])
        _remove_used(resumed, {files.state, files.request})
        document = {
            "status": "refresh",
            "request": str(files.request),
            "state": str(files.state),
            "bytes": written,
        }
        text = (
            f"the program needs the key holder: have {files.request} answered with hecompile "
            f"refresh, then go on with --resume {files.state} --response RESPONSE"
        )
        console.result(document, text, as_json)
        return
    written = write_parts(files.output, [outcome.output for outcome in outcomes])
    _remove_used(resumed, {files.output})
    document = {"status": "done", "output": str(files.output), "bytes": written}
    console.result(document, f"wrote {files.output}: {console.size(written)}", as_json)


def _remove_used(state: Path | None, written: Collection[Path]) -> None:
    """Remove a state that was gone on from, and its request, unless they were just written.

    The state holds the masks of a request that is answered, so nothing needs either any more.
    """
    if state is None:
        return
    used = [state]
    if state.name.endswith(STATE_SUFFIX):
        used.append(state.with_name(state.name.removesuffix(STATE_SUFFIX) + REQUEST_SUFFIX))
    kept = {path.resolve() for path in written}
    for path in used:
        if path.resolve() not in kept:
            path.unlink(missing_ok=True)
