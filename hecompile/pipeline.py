"""Pipelines: a list of passes that is data and text, checked before anything runs."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass

from hecompile.errors import HecompileError, PassError, PipelineError
from hecompile.ir.program import Program
from hecompile.ir.verifier import verify
from hecompile.observe import Observer
from hecompile.passbase import Context, Pass, find_pass

_STEP = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?:\{([^{}]*)\})?\s*(,|$)")


@dataclass(frozen=True)
class Pipeline:
    """Passes in order of execution.

    `str(pipeline)` and `parse_pipeline` are inverse for registered passes.
    """

    passes: tuple[Pass, ...]

    def __post_init__(self) -> None:
        """Check the order.

        Raises:
            PipelineError: a pass comes before one that it must run after.
        """
        names = [p.name for p in self.passes]
        for i, one in enumerate(self.passes):
            for other in one.after:
                if other in names[i + 1 :] and other not in names[:i]:
                    raise PipelineError(f"{one.name} must run after {other}; exchange them")

    def __str__(self) -> str:
        """Write the pipeline as `parse_pipeline` reads it."""
        return ",".join(map(str, self.passes))

    def run(
        self, program: Program, context: Context, observers: Iterable[Observer] = ()
    ) -> Program:
        """Apply every pass in order, verifying the program after each.

        Raises:
            HecompileError: from a pass, or from the verifier (naming the pass that broke a rule).
        """
        watching = tuple(observers)
        verify(program)
        for position, one in enumerate(self.passes):
            for observer in watching:
                observer.before(position, one, program)
            result = _apply(one, program, context)
            try:
                verify(result)
            except HecompileError as error:
                raise PassError(f"{one.name} left an invalid program: {error}") from error
            if lost := sorted(_signature(program) - _signature(result)):
                raise PassError(f"{one.name} lost {', '.join(lost)}; inputs and outputs must stay")
            for observer in watching:
                observer.after(position, one, program, result)
            program = result
        return program

    def stop_after(self, name: str) -> Pipeline:
        """The passes up to and with the last one of this name.

        Raises:
            PipelineError: no pass of this name in the pipeline.
        """
        positions = [i for i, p in enumerate(self.passes) if p.name == name]
        if not positions:
            raise PipelineError(f"the pipeline has no pass '{name}' to stop after: {self}")
        return Pipeline(self.passes[: positions[-1] + 1])


def _apply(one: Pass, program: Program, context: Context) -> Program:
    """Run a pass; a fault of the pass is told by its name.

    Raises:
        PassError: the pass fails in another way than its contract says, or returns no program.
    """
    try:
        result = one.run(program, context)
    except (HecompileError, MemoryError):
        raise
    except Exception as error:
        where = type(one).__module__
        raise PassError(
            f"the pass {one.name} ({where}) failed: {type(error).__name__}: {error}; mend the pass"
        ) from error
    if not isinstance(result, Program):
        raise PassError(f"the pass {one.name} returned {type(result).__name__}, not a program")
    return result


def _signature(program: Program) -> set[str]:
    """The inputs and outputs of a program, whichever its level."""
    ends = {"input", "output"}
    return {
        f"{kind} '{getattr(op, 'label', '')}'"
        for op in program
        if (kind := op.name.partition(".")[2]) in ends
    }


def parse_pipeline(text: str) -> Pipeline:
    """Read a pipeline as in `fold-batchnorm,approximate{degree=3 method=minimax},cse`.

    Raises:
        PipelineError: syntax, an unknown pass or option, an option of the wrong kind, or order.
    """
    passes: list[Pass] = []
    position = 0
    while position < len(text.rstrip()):
        match = _STEP.match(text, position)
        if match is None:
            raise PipelineError(f"pipeline, column {position + 1}: cannot read '{text[position:]}'")
        passes.append(build_pass(match[1], match[2] or ""))
        position = match.end()
    if text.rstrip().endswith(","):
        raise PipelineError("pipeline: a pass is missing after the last comma")
    return Pipeline(tuple(passes))


def build_pass(name: str, options: str = "") -> Pass:
    """Build a pass from its name and options as in `degree=3 method=minimax`.

    Raises:
        PipelineError: unknown pass or option, or an option of the wrong kind.
    """
    cls = find_pass(name)
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, object] = {}
    for item in options.split():
        key, equals, text = item.partition("=")
        if not equals or key not in known or key in values:
            takes = ", ".join(known) or "no options"
            raise PipelineError(f"{name}: cannot use '{item}'; it takes {takes}")
        values[key] = _option(name, key, text, hints[key])
    try:
        return cls(**values)
    except TypeError as error:
        missing = [
            f.name
            for f in dataclasses.fields(cls)
            if f.default is dataclasses.MISSING and f.name not in values
        ]
        raise PipelineError(f"{name} lacks the option {', '.join(missing)}") from error


def _option(name: str, key: str, text: str, hint: object) -> object:
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if union else (hint,)
    if text == "None" and types.NoneType in kinds:
        return None
    for kind in (k for k in kinds if k is not types.NoneType):
        if kind is bool and text in ("true", "false"):
            return text == "true"
        try:
            if kind in (int, float, str):
                return kind(text)
        except ValueError:
            continue
    wanted = " or ".join(getattr(k, "__name__", str(k)) for k in kinds)
    raise PipelineError(f"{name}: option {key} is {wanted}, not '{text}'")
