"""The compiler on one page: import, tensor passes, a ring, slot passes, checks, a bundle."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from numpy.typing import ArrayLike

from hecompile.access.labels import Flow, flows_of
from hecompile.access.manifest import Manifest
from hecompile.access.policy import Policy
from hecompile.access.proof import ProgramFacts
from hecompile.access.release_plan import ReleasePlan
from hecompile.access.signing import SigningKey
from hecompile.access.users import Users
from hecompile.backends import find_backend
from hecompile.bundle.assemble import Terms, bundle_files, prepare_policy
from hecompile.bundle.local_users import prepare_users, signed_users
from hecompile.bundle.store import write_bundle
from hecompile.calibration import Calibration, prepare_calibration
from hecompile.config import CompileOptions
from hecompile.errorbudget import ErrorBudget, Reference
from hecompile.errors import CompileError
from hecompile.estimate import estimate
from hecompile.frontend import Source, import_onnx
from hecompile.interpret.compare import out_of_range
from hecompile.interpret.samples import as_samples
from hecompile.interpret.slots import run_program_slots, trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.graph import critical_path, levels_consumed
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Polynomial
from hecompile.npz import load_npz
from hecompile.observe import Observer
from hecompile.passbase import Context, Note, Pass
from hecompile.pipeline import Pipeline
from hecompile.pipelines import tensor_pipeline
from hecompile.precision import OutputNoise, predict_noise
from hecompile.preprocess import Step
from hecompile.releases import (
    Publication,
    check_rows,
    explain,
    plan_releases,
    publications,
    quietest,
)
from hecompile.report import Report, fit_reports
from hecompile.rings import RingSearch
from hecompile.runtime.spec import ClientSpec, spec_from_program

_AIMS = (1.0, 0.25, 0.0625)
"""Shares of the precision that polynomials are fitted for, one after the other."""

_LOUDER = (4.0, 32.0)
"""Factors on a noise that no plan meets, which others are tried with for the message's sake."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Attributes:
        original: the imported model, tensor level.
        polynomial: the model as it is computed under encryption, tensor level.
        program: the encrypted program, with levels, scales and parameters.
        policy: what each role may do.
        users: who has which role; None to have that said later.
        facts: what the policy was proved for.
        flows: labels that flow into each output.
        releases: how outputs are published that the policy publishes.
        spec: what client and key holder need.
        report: what was promised and predicted.
    """

    original: Program
    polynomial: Program
    program: Program
    policy: Policy
    users: Users | None
    facts: ProgramFacts
    flows: tuple[Flow, ...]
    releases: tuple[ReleasePlan, ...]
    spec: ClientSpec
    report: Report

    @property
    def predicted_error(self) -> float:
        """Bound on the distance between a decrypted output and the model's."""
        return self.report.predicted_error

    def simulate(self, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """Run the encrypted program's slot arithmetic in the clear, without noise.

        Args:
            inputs: preprocessed samples by input label, batch first or (S, *shape of one sample).

        Returns:
            Raw outputs by label, (S, *shape).
        """
        return run_program_slots(self.program, as_samples(self.original, inputs))

    def save(
        self,
        path: str | Path,
        *,
        signing_key: SigningKey | None = None,
        overwrite: bool = False,
        terms: Terms | None = None,
        tell: Note | None = None,
    ) -> Manifest:
        """Write the signed bundle, a folder or one `.hec` file, whole or not at all.

        Args:
            path: where to.
            signing_key: signs the manifest and the users document; None for the user's own.
            overwrite: replace a bundle that is there.
            terms: from when until when the manifest holds, who else signs, what it supersedes.
            tell: told of identities that were made for users without a key.

        Raises:
            InputError: the place is taken or cannot be written.
        """
        told = tell if tell is not None else _silent
        files, manifest = bundle_files(
            self.program,
            self.spec,
            self.policy,
            self.report,
            flows=self.flows,
            releases=self.releases,
            terms=terms if terms is not None else Terms(),
        )
        key = signing_key if signing_key is not None else SigningKey.load_or_create()
        users = signed_users(self.users, key, told)
        return write_bundle(path, files, manifest, key, overwrite=overwrite, users=users)


def compile(
    model: Source,
    *,
    calibration: Mapping[str, ArrayLike] | str | Path,
    policy: Policy | str | Path | None = None,
    users: Users | str | Path | None = None,
    backend: str = "tenseal",
    precision: float | None = None,
    passes: Sequence[Pass] = (),
    options: CompileOptions | None = None,
    preprocessing: Mapping[str, Sequence[Step]] | None = None,
    observers: Iterable[Observer] = (),
    note: Note | None = None,
    progress: Progress | None = None,
) -> Compiled:
    """Compile a trained model into an encrypted program.

    Args:
        model: an ONNX file's path, its bytes, or the model in memory.
        calibration: representative samples by input name, batch first, or an .npz file of them.
        policy: what each role may do; a built-in single-owner policy if none is given.
        users: who has which role, or the path of a users.toml; the built-in policy has its own.
        backend: what executes the program.
        precision: largest distance from the model's raw outputs allowed, polynomials and noise
            together; None for the compiler's choice, which the report states.
        passes: further passes; each runs before calibration of the level that its `stage` names.
        options: batch, refreshes, degrees and so on; see `CompileOptions`.
        preprocessing: steps by input name that the client takes before encryption.
        observers: called around every pass.
        note: called with each fact worth telling.
        progress: called with each stage's name as it begins.

    Raises:
        HecompileError: bad input, unsupported nodes, or nothing meets what was asked.
    """
    options = options if options is not None else CompileOptions()
    find_backend(backend)
    told = progress if progress is not None else _silent
    told("importing the model")
    original = import_onnx(model, input_shapes=options.shapes())
    arrays = load_npz(calibration) if isinstance(calibration, str | Path) else calibration
    samples = prepare_calibration(original, arrays, preprocessing)
    checked = prepare_policy(
        policy, original, encrypt_model=options.encrypt_model, unmasked=options.unmasked
    )
    check_rows(checked.policy, preprocessing)
    people = prepare_users(users, checked.policy, built_in=policy is None)
    context = Context(
        samples.fit, precision, note if note is not None else _silent, checked.policy.labels
    )
    if samples.judge is samples.fit:
        context.note(
            f"only {samples.count} calibration samples: ranges and errors are guesses; "
            "give 100 or more"
        )
    told("approximating activations")
    before = [p for p in passes if p.stage == "tensor"]
    tensors = tensor_pipeline(options, before)
    fitted = _fitted(original, samples, tensors, context, options, tuple(observers), told)
    polynomial, budget, noise = fitted
    flows = flows_of(polynomial, checked.policy)
    checked.foresee(people, flows)
    published = publications(checked.policy, polynomial, samples.everything)
    everything = replace(context, calibration=samples.everything)
    search = _Search(polynomial, everything, options, passes, tuple(observers), told)
    planned, program = search.best(noise, published)
    report, found = _report(budget, polynomial, planned, program, samples, precision, options)
    releases = plan_releases(published, found)
    facts = checked.check(program, people, flows, releases)
    outputs = samples.output_ranges(polynomial, report.noise_error)
    spec = spec_from_program(program, preprocessing, samples.ranges(), outputs)
    return Compiled(
        original, polynomial, program, checked.policy, people, facts, flows, releases, spec, report
    )


@dataclass(frozen=True)
class _Search:
    """The search over rings, but for the noise that outputs may have."""

    polynomial: Program
    context: Context
    options: CompileOptions
    passes: Sequence[Pass]
    observers: tuple[Observer, ...]
    told: Progress

    def best(
        self, noise: float | None, published: tuple[Publication, ...]
    ) -> tuple[Program, Program]:
        """The cheapest program quiet enough for the precision and for what is published.

        Raises:
            CompileError: there is none; where only publishing is in the way, what would help.
        """
        quiet = quietest(published, noise)
        try:
            return self._best(quiet)
        except CompileError as error:
            if quiet == noise:
                raise
            raise explain(published, error, self._reached(quiet or math.inf, noise)) from error

    def _reached(self, quiet: float, noise: float | None) -> tuple[OutputNoise, ...]:
        """Noise of the outputs that can be had, where `quiet` cannot; empty if none is near."""
        self.told("planning with more noise, to see how many releases that would allow")
        for factor in _LOUDER:
            if noise is not None and quiet * factor > noise:
                break
            with contextlib.suppress(CompileError):
                _, program = self._best(quiet * factor)
                return predict_noise(program, trace_slots(program, self.context.calibration or {}))
        return ()

    def _best(self, noise: float | None) -> tuple[Program, Program]:
        return RingSearch(
            self.polynomial,
            self.context,
            self.options,
            self.passes,
            self.observers,
            self.told,
            noise,
        ).best()


def _fitted(
    original: Program,
    samples: Calibration,
    tensors: Pipeline,
    context: Context,
    options: CompileOptions,
    observers: tuple[Observer, ...],
    told: Progress,
) -> tuple[Program, ErrorBudget, float | None]:
    """The polynomial program, its errors, and what they leave to the noise.

    Where samples held back from fitting show more error than the fit expected, it aims lower.
    """
    refusal: CompileError | None = None
    reference = Reference.of(original, samples)
    for aim in _AIMS:
        wanted = context.precision * aim if context.precision is not None else None
        try:
            fitting = replace(context, precision=wanted)
            polynomial = tensors.run(original, fitting, observers).replace(batch=options.batch)
        except CompileError as error:
            raise refusal or error from error
        budget = reference.budget(polynomial)
        try:
            return polynomial, budget, budget.noise(context.precision, options.degree is None)
        except CompileError as error:
            refusal = refusal or error
            if options.degree is not None or not polynomial.select(Polynomial):
                break
        told("approximating activations more closely")
    raise refusal or CompileError("no polynomials were fitted")


def _silent(message: str) -> None:
    """Drop a message."""


def _report(
    budget: ErrorBudget,
    polynomial: Program,
    planned: Program,
    program: Program,
    samples: Calibration,
    precision: float | None,
    options: CompileOptions,
) -> tuple[Report, tuple[OutputNoise, ...]]:
    """The report, and the noise of every output on all calibration samples."""
    outside = {r.value: r.fraction for r in out_of_range(polynomial, samples.judge)}
    predicted = estimate(program)
    options.check_limits([predicted], precision is not None)
    if program.parameters is None:
        raise CompileError(f"program '{program.name}' was left without parameters")
    found = predict_noise(program, trace_slots(program, samples.everything))
    report = Report(
        program=program.name,
        parameters=program.parameters,
        batch=program.batch,
        depth=sum(map(levels_consumed, critical_path(planned))),
        levels=program.parameters.levels,
        estimate=predicted,
        mask_bits=min((op.mask_bits for op in program.select(he.Refresh)), default=0),
        approximation_error=budget.approximation,
        noise_error=max(n.bound for n in found),
        reference_error=budget.reference,
        precision=precision,
        fits=fit_reports(polynomial, outside),
        calibration_samples=samples.count,
        line=options.line,
    )
    if report.fits and report.approximation_error > budget.magnitude:
        raise CompileError(
            f"program '{program.name}': its polynomials change the outputs by up to "
            f"{report.approximation_error:.3g}, more than the outputs' own {budget.magnitude:.3g}; "
            "ask for a --precision, which raises degrees, or retrain with polynomial activations"
        )
    return report, found
