"""The compiler on one page: import, tensor passes, a ring, slot passes, checks, a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from numpy.typing import ArrayLike

from hecompile.access.manifest import Manifest
from hecompile.access.policy import Policy
from hecompile.access.signing import SigningKey
from hecompile.backends import find_backend
from hecompile.bundle.assemble import bundle_files, prepare_policy
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
from hecompile.precision import predict_noise
from hecompile.preprocess import Step
from hecompile.report import Report, fit_reports
from hecompile.rings import RingSearch
from hecompile.runtime.spec import ClientSpec, spec_from_program

_AIMS = (1.0, 0.25, 0.0625)
"""Shares of the precision that polynomials are fitted for, one after the other."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Attributes:
        original: the imported model, tensor level.
        polynomial: the model as it is computed under encryption, tensor level.
        program: the encrypted program, with levels, scales and parameters.
        policy: who may do what.
        spec: what client and key holder need.
        report: what was promised and predicted.
    """

    original: Program
    polynomial: Program
    program: Program
    policy: Policy
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
        self, path: str | Path, *, signing_key: SigningKey | None = None, overwrite: bool = False
    ) -> Manifest:
        """Write the signed bundle, a folder or one `.hec` file, whole or not at all.

        Raises:
            InputError: the place is taken or cannot be written.
        """
        files, manifest = bundle_files(self.program, self.spec, self.policy, self.report)
        key = signing_key if signing_key is not None else SigningKey.load_or_create()
        return write_bundle(path, files, manifest, key, overwrite=overwrite)


def compile(
    model: Source,
    *,
    calibration: Mapping[str, ArrayLike] | str | Path,
    policy: Policy | str | Path | None = None,
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
        policy: who may do what; a built-in single-owner policy if none is given.
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
    context = Context(samples.fit, precision, note if note is not None else _silent)
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
    everything = replace(context, calibration=samples.everything)
    search = RingSearch(polynomial, everything, options, passes, tuple(observers), told, noise)
    planned, program = search.best()
    report = _report(budget, polynomial, planned, program, samples, precision, options)
    checked.check(program)
    outputs = samples.output_ranges(polynomial, report.noise_error)
    spec = spec_from_program(program, preprocessing, samples.ranges(), outputs)
    return Compiled(original, polynomial, program, checked.policy, spec, report)


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
) -> Report:
    everything = samples.everything
    outside = {r.value: r.fraction for r in out_of_range(polynomial, samples.judge)}
    predicted = estimate(program)
    options.check_limits([predicted], precision is not None)
    if program.parameters is None:
        raise CompileError(f"program '{program.name}' was left without parameters")
    seen = trace_slots(program, everything)
    report = Report(
        program=program.name,
        parameters=program.parameters,
        batch=program.batch,
        depth=sum(map(levels_consumed, critical_path(planned))),
        levels=program.parameters.levels,
        estimate=predicted,
        mask_bits=min((op.mask_bits for op in program.select(he.Refresh)), default=0),
        approximation_error=budget.approximation,
        noise_error=max(n.bound for n in predict_noise(program, seen)),
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
    return report
