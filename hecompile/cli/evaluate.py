"""`hecompile evaluate`: the evaluator's part, in one go or from refresh to refresh."""

from __future__ import annotations

from collections.abc import Sequence
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
)
from hecompile.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from hecompile.runtime.evaluator import Evaluation, Evaluator


@click.command("evaluate")
@bundle_argument
@keys_option("evaluation")
@click.option("--input", "encrypted", type=PATH, metavar="IN.hect", help="Encrypted samples.")
@click.option("--resume", type=PATH, metavar="STATE", help="Go on where this state stopped.")
@click.option("--response", type=PATH, metavar="RESPONSE", help="The key holder's answer to it.")
@output_option("The encrypted outputs.", True, "OUT.hect")
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    encrypted: Path | None,
    resume: Path | None,
    response: Path | None,
    output: Path,
    access: Access,
    as_json: bool,
) -> None:
    """Compute on encrypted samples with the evaluation keys.

    Where the program needs the key holder, OUT.hect.request and OUT.hect.state are written instead
    of OUT.hect. Send the request to `hecompile refresh`, then go on with --resume OUT.hect.state
    --response RESPONSE. The state holds the masks: it is private to the evaluator.
    """
    begins = encrypted is not None and resume is None and response is None
    goes_on = encrypted is None and resume is not None and response is not None
    if not begins and not goes_on:
        raise UsageError("give either --input, or --resume together with --response")
    door = access.door(bundle)
    door.guard(access.user).evaluate()
    check_output(output)
    evaluator = _evaluator(door, keys)
    running = _begun(evaluator, encrypted or resume or output, response)
    _finish(running, _Files.beside(output), resume, as_json)


def _evaluator(door: Door, keys: Path) -> Evaluator:
    from hecompile.runtime.evaluator import Evaluator, galois_steps
    from hecompile.runtime.keys import load_evaluation_keys
    from hecompile.runtime.parties import read_program, read_spec

    files = door.files()
    spec = read_spec(files)
    program = read_program(files, spec)
    progress = console.Progress()
    found = load_evaluation_keys(
        keys, spec.parameters, spec.program, galois_steps(program), progress, spec.manifest
    )
    return Evaluator(program, found, progress=progress, manifest=spec.manifest)


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
            output.with_name(f"{output.name}.request"),
            output.with_name(f"{output.name}.state"),
        )


def _finish(
    running: Sequence[Evaluation], files: _Files, resumed: Path | None, as_json: bool
) -> None:
    from hecompile.cli.hectfile import write_parts

    # The program has no branches: every evaluation stops at the same refreshes.
    requests = [evaluation.advance() for evaluation in running]
    asked = [request for request in requests if request is not None]
    if asked:
        # The state first: a request whose masks are lost could not be used.
        write_parts(files.state, [evaluation.checkpoint() for evaluation in running], 0o600)
        written = write_parts(files.request, asked)
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
    written = write_parts(files.output, [evaluation.output() for evaluation in running])
    if resumed is not None:
        # It holds the masks, and nothing needs it any more.
        resumed.unlink(missing_ok=True)
    document = {"status": "done", "output": str(files.output), "bytes": written}
    console.result(document, f"wrote {files.output}: {console.size(written)}", as_json)
