"""One run of all parties: keys, client and key holder here, the evaluator in its own process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from hecompile.access.decide import Decision
from hecompile.access.ledger import ReleaseLedger
from hecompile.access.objects import Action
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.runtime.allowance import Allowance
from hecompile.runtime.client import Client, RangeWarning
from hecompile.runtime.crew import evaluate_groups, summed_phases, summed_timings
from hecompile.runtime.custodian import Custodian, OutputWarning
from hecompile.runtime.decrypted import WarnOutput
from hecompile.runtime.evaluator import galois_steps
from hecompile.runtime.inspection import OpenInspector
from hecompile.runtime.key_folders import CardCheck, ExactCard
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import (
    Progress,
    PublicKey,
    SecretKey,
    generate_keys,
    load_public_key,
    load_secret_key,
    no_progress,
    public_key,
    secret_key,
)
from hecompile.runtime.machine import Timing
from hecompile.runtime.model_weights import ModelOwner
from hecompile.runtime.postprocess import Processed
from hecompile.runtime.processes import EvaluatorProcess
from hecompile.runtime.program_files import Server as Server
from hecompile.runtime.program_files import load_program
from hecompile.runtime.release import ReleasedOutput, ReleaseRules
from hecompile.runtime.release_log import ReleaseLog
from hecompile.runtime.spec import ClientSpec
from hecompile.runtime.usage import Phase, Stopwatch, peak_memory_bytes
from hecompile.runtime.wants import labels_of

if TYPE_CHECKING:
    from hecompile.runtime.vault import Vault

MODEL_PHASE = "encrypt-model"
PHASES = ("keygen", "load", "encrypt", "evaluate", "refresh", "decrypt")

Warn = Callable[[RangeWarning | OutputWarning | str], None]


@dataclass(frozen=True)
class RunResult:
    """What a run gave and took.

    Attributes:
        raw_outputs: By output, samples first, before post-processing.
        outputs: By output, samples first, after post-processing.
        phases: CPU and wall seconds of each of `PHASES`; `load` and `evaluate` are the
            evaluator's, the others are this process's. Where weights are encrypted, that is one
            more.
        peak_memory_bytes: Largest resident memory of the evaluator's processes together.
        client_peak_memory_bytes: Largest resident memory of this process.
        ciphertext_bytes_in: Bytes of input envelopes.
        ciphertext_bytes_out: Bytes of output envelopes.
        refresh_bytes: Bytes of refresh requests and responses.
        refresh_rounds: Number of round trips.
        timings: Time in the evaluator per operation name.
        warnings: Inputs outside the calibrated ranges.
        output_warnings: Decrypted outputs outside the calibrated ranges.
        released: How the outputs were released that the user may not see raw, by label; their
            values stand among the others.
        notes: What else the user should know, such as a kernel that had to take a slower way.
    """

    raw_outputs: dict[str, Array]
    outputs: dict[str, Processed]
    phases: dict[str, Phase]
    peak_memory_bytes: int
    client_peak_memory_bytes: int
    ciphertext_bytes_in: int
    ciphertext_bytes_out: int
    refresh_bytes: int
    refresh_rounds: int
    timings: dict[str, Timing]
    warnings: tuple[RangeWarning, ...]
    output_warnings: tuple[OutputWarning, ...]
    released: dict[str, ReleasedOutput]
    notes: tuple[str, ...]

    @property
    def told(self) -> tuple[RangeWarning | OutputWarning | str, ...]:
        """Every warning, in order."""
        return (*self.warnings, *self.output_warnings, *self.notes)


@dataclass(frozen=True)
class Opening:
    """How the outputs of a run are opened, as a policy decided.

    Attributes:
        decisions: One for each output: to decrypt it, or to declassify it.
        rules: What the manifest says of releases.
        log: Takes down what is released.
    """

    decisions: tuple[Decision, ...]
    rules: ReleaseRules
    log: ReleaseLog | None = None

    def of(self, action: Action) -> tuple[Decision, ...]:
        """The decisions about one action."""
        return tuple(one for one in self.decisions if one.request.action is action)


def run_parties(
    server: Server,
    spec: ClientSpec,
    inputs: Mapping[str, ArrayLike],
    *,
    keys: str | Path | None = None,
    only: Sequence[str] | None = None,
    opening: Opening | None = None,
    vault: Vault | None = None,
    memory_limit: int | None = None,
    timeout: float | None = None,
    progress: Progress = no_progress,
    warn: Warn | None = None,
    model_weights: Mapping[str, Array] | None = None,
    workers: int = 1,
    weights_cache: str | Path | None = None,
    allowed: Allowance | None = None,
    cards: CardCheck | None = None,
) -> RunResult:
    """Encrypt samples, evaluate them in another process, decrypt or release the results.

    No policy is asked here: ask it before the arguments are read, as `PolicyGuard.run` does. All
    envelopes stay between this process and those it started, so that none is signed.

    Args:
        server: The evaluator's files.
        spec: Of the same program.
        inputs: As `Client.encrypt` takes them.
        keys: Folder of keys; None for fresh ones, whose secret part never reaches the disk.
        only: Outputs to decrypt; None for all.
        opening: Decides instead which outputs are decrypted and which released; releases under
            fresh keys are counted for this run only.
        vault: What unwraps the secret key in `keys`; None for the machine's own.
        memory_limit: Most bytes of the evaluator's encoded weights.
        timeout: Seconds that loading, or the evaluation of one group, may take.
        progress: Told what is going on.
        warn: Told of inputs and decrypted outputs outside the calibrated ranges.
        model_weights: The model owner's constants by value name, for a program that hides them
            from the evaluator; they are encrypted here, which is one more phase.
        workers: Most evaluator processes at a time, each with groups of samples of its own, and
            processes that make keys. Where there are fewer groups than half of it, two processes
            share each evaluation if that is quicker.
        weights_cache: Folder where the evaluator keeps encoded weights, in clear; None keeps none.
        allowed: What each evaluator process may take of the machine; None for what is predicted.
        cards: Knows who may sign `keys`; fresh ones, and a program in no bundle, need none.

    Raises:
        HecompileError: Bad input, keys of another bundle, or the evaluator failed.
    """
    watch = Stopwatch()
    program = load_program(server.program, server.constants)
    allowed = allowed if allowed is not None else Allowance()
    warnings: list[RangeWarning] = []
    output_warnings: list[OutputWarning] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hecompile-") as scratch:
        with watch.measure("keygen"):
            if keys is None:
                made = _fresh(program, spec, Path(scratch), progress, workers)
            else:
                made = _held(keys, spec, vault, cards)
            secret, public = made.secret, made.public
        model = None
        if model_weights is not None:
            with watch.measure(MODEL_PHASE):
                owner = ModelOwner(program, model_weights, public, spec.manifest)
                model = owner.encrypt(progress)
        custodian = _custodian(spec, secret, opening, Path(scratch))
        with watch.measure("encrypt"):
            envelopes = Client(spec, public).encrypt(inputs, warnings.append)
        _tell(warnings, warn)
        groups = _GroupProgress(progress, len(envelopes))
        crew = max(1, min(workers, len(envelopes)))
        sent = envelopes if model is None else [*envelopes, model]
        limits = allowed.limits(program, sent, len(envelopes))
        processes = [
            EvaluatorProcess(
                server.program,
                server.constants,
                spec,
                made.folder,
                model=model,
                memory_limit=memory_limit if memory_limit is not None else allowed.weights,
                timeout=timeout,
                progress=groups,
                workers=workers // crew,
                note=notes.append,
                weights_cache=weights_cache,
                inspector=OpenInspector(),
                limits=limits,
                cards=made.cards,
            )
            for _ in range(crew)
        ]
        results = _evaluate(processes, envelopes, custodian, watch, groups)
        with watch.measure("decrypt"):
            raw, outputs, released = _opened(
                custodian, results, only, opening, output_warnings.append
            )
    _tell(output_warnings, warn)
    # Each worker tells the same.
    notes = list(dict.fromkeys(notes))
    _tell(notes, warn)
    for name, phase in summed_phases(processes).items():
        watch.add(name, phase)
    names = PHASES if model is None else (*PHASES, MODEL_PHASE)
    return RunResult(
        raw,
        outputs,
        {name: watch.phases.get(name, Phase()) for name in names},
        sum(process.peak_memory_bytes for process in processes),
        peak_memory_bytes(),
        sum(map(len, envelopes)),
        sum(map(len, results)),
        sum(process.refresh_bytes for process in processes),
        custodian.rounds,
        summed_timings(processes),
        tuple(warnings),
        tuple(output_warnings),
        released,
        tuple(notes),
    )


def _custodian(
    spec: ClientSpec, secret: SecretKey, opening: Opening | None, scratch: Path
) -> Custodian:
    """The key holder; releases under a key without a folder are counted in `scratch`."""
    ledger = None
    if secret.folder is None:
        ledger = ReleaseLedger(scratch, secret.card.key_id)
        ledger.create()
    rules = opening.rules if opening is not None else None
    log = opening.log if opening is not None else None
    inspector = OpenInspector()
    return Custodian(spec, secret, inspector=inspector, ledger=ledger, rules=rules, log=log)


def _opened(
    custodian: Custodian,
    results: Sequence[bytes],
    only: Sequence[str] | None,
    opening: Opening | None,
    warn: WarnOutput,
) -> tuple[dict[str, Array], dict[str, Processed], dict[str, ReleasedOutput]]:
    """Outputs before and after post-processing, and how those were released that are not raw."""
    if opening is None:
        found = custodian.decrypt_all(results, only, warn)
        return found.raw, found.outputs, {}
    raw: dict[str, Array] = {}
    outputs: dict[str, Processed] = {}
    if plain := labels_of(opening.of(Action.DECRYPT)):
        found = custodian.decrypt_all(results, plain, warn)
        raw, outputs = found.raw, found.outputs
    granted = opening.of(Action.DECLASSIFY)
    if not granted:
        return raw, outputs, {}
    released = custodian.release_granted(results, granted)
    return raw | released.raw, outputs | released.values, released.outputs


def _tell(warnings: Sequence[RangeWarning | OutputWarning | str], warn: Warn | None) -> None:
    for warning in warnings:
        if warn is not None:
            warn(warning)


def _evaluate(
    processes: Sequence[EvaluatorProcess],
    envelopes: Sequence[bytes],
    custodian: Custodian,
    watch: Stopwatch,
    groups: _GroupProgress,
) -> list[bytes]:
    """Have every envelope evaluated in the processes, refreshed by the custodian here."""

    def answer(request: bytes) -> bytes:
        with watch.measure("refresh"):
            return custodian.refresh(request)

    if len(processes) > 1:
        return evaluate_groups(processes, envelopes, answer)
    results = []
    with processes[0] as process:
        for envelope in envelopes:
            groups.group += 1
            results.append(process.evaluate(envelope, answer))
    return results


class _GroupProgress:
    """Says which of several groups of packed samples a task is for."""

    def __init__(self, progress: Progress, groups: int) -> None:
        self.group = 0
        self._progress = progress
        self._groups = groups

    def __call__(self, task: str, done: int, total: int) -> None:
        if self.group and self._groups > 1:
            task = f"{task} sample group {self.group} of {self._groups}"
        self._progress(task, done, total)


@dataclass(frozen=True)
class _Keys:
    """The keys of a run: the folder of the evaluation keys, who vouches for it, and the others."""

    folder: Path
    cards: CardCheck | None
    secret: SecretKey
    public: PublicKey


def _held(
    keys: str | Path, spec: ClientSpec, vault: Vault | None, cards: CardCheck | None
) -> _Keys:
    """Keys that were made before."""
    bundle = spec.parameters, spec.program, spec.manifest
    secret = load_secret_key(keys, *bundle, vault)
    return _Keys(
        Path(keys) / Role.EVALUATION.value, cards, secret, load_public_key(keys, *bundle, cards)
    )


def _fresh(
    program: Program, spec: ClientSpec, scratch: Path, progress: Progress, workers: int
) -> _Keys:
    """New keys for this run alone."""
    steps = galois_steps(program)
    ring = generate_keys(
        spec.parameters, steps, spec.program, progress, scratch, spec.manifest, workers
    )
    return _Keys(
        scratch / Role.EVALUATION.value,
        ExactCard(ring.source(Role.EVALUATION).digest),
        secret_key(ring.source(Role.SECRET)),
        public_key(ring.source(Role.PUBLIC)),
    )
