"""`hecompile evaluate`: the evaluator's part, in one go or from refresh to refresh."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.door import Door
from hecompile.cli.options import (
    PATH,
    Access,
    access_options,
    bundle_argument,
    check_output,
    json_option,
    keys_option,
    output_option,
    weights_cache_option,
    workers_option,
)
from hecompile.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from hecompile.runtime.evaluator import Evaluation, Evaluator
    from hecompile.runtime.profiling import Profiler

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
@output_option("The encrypted outputs.", True, "OUT.hect")
@workers_option
@weights_cache_option
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
    output: Path,
    workers: int,
    weights_cache: Path | None,
    access: Access,
    as_json: bool,
) -> None:
    """Compute on encrypted samples with the evaluation keys.

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
    door = access.door(bundle)
    door.guard(access.user).evaluate()
    check_output(output)
    check_output(profile)
    evaluator = _evaluator(door, keys, model, weights_cache)
    profiler = _profiler(evaluator) if profile is not None else None
    running = _begun(evaluator, encrypted or resume or output, response)
    # A profile is this process's.
    workers = 1 if profiler else workers
    if workers > 1 and len(running) == 1:
        evaluator.start_helper()
    _finish(running, _Files.beside(output), resume, as_json, workers)
    if profiler is not None and profile is not None:
        from hecompile.costs import write_profile

        write_profile(profile, profiler.profile(len(running)))


def _one_thread() -> None:
    """Keep matrix products to one thread: the processors belong to whole processes.

    Numerical libraries read it when they are imported, so nothing is done where they are.
    """
    if "numpy" not in sys.modules:
        for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.setdefault(name, "1")


def _evaluator(door: Door, keys: Path, model: Path | None, cache: Path | None) -> Evaluator:
    from hecompile.runtime.evaluator import Evaluator, galois_steps
    from hecompile.runtime.keys import load_evaluation_keys
    from hecompile.runtime.model_weights import read_model_file
    from hecompile.runtime.parties import read_program, read_spec

    files = door.files()
    if files.has_owners_part:
        console.warn(
            "this bundle holds the model's weights in the clear; give the evaluator the copy that "
            "'hecompile export' writes"
        )
    spec = read_spec(files)
    program = read_program(files, spec)
    progress = console.Progress()
    found = load_evaluation_keys(
        keys, spec.parameters, spec.program, galois_steps(program), progress, spec.manifest
    )
    weights = read_model_file(model, program) if model is not None else None
    return Evaluator(
        program,
        found,
        progress=progress,
        manifest=spec.manifest,
        model=weights,
        weights_cache=cache,
    )


def _profiler(evaluator: Evaluator) -> Profiler:
    from hecompile.runtime.profiling import Profiler

    return Profiler(evaluator)


def _begun(evaluator: Evaluator, source: Path, response: Path | None) -> list[Evaluation]:
    """Evaluations of encrypted samples, or of a state and the answers that it waited for."""
    from hecompile.cli.hectfile import read_parts

    parts = read_parts(source)
    if response is None:
        return [evaluator.start(part) for part in parts]
    answers = read_parts(response)
    if len(answers) != len(parts):
        raise IntegrityError(
            f"{response} answers {len(answers)} evaluations, where {source} holds {len(parts)}"
        )
    running = [evaluator.resume(part) for part in parts]
    for evaluation, answer in zip(running, answers, strict=True):
        evaluation.accept(answer)
    return running


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
    running: Sequence[Evaluation],
    files: _Files,
    resumed: Path | None,
    as_json: bool,
    workers: int,
) -> None:
    from hecompile.cli.hectfile import write_parts
    from hecompile.runtime.crew import advance_all

    # The program has no branches: every evaluation stops at the same refreshes.
    outcomes = advance_all(running, workers)
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
