"""Golden cases: files that hold a pipeline, a program, and what the pipeline makes of it.

    // pipeline: fold-batchnorm,cse
    // calibration: seed=0 samples=64        (optional: that many samples drawn from N(0, 1))
    // precision: 1e-3                       (optional)
    // labels: x = vitals.hr; y axis 0 = a b (optional: what inputs are about, as a policy says it)
    program "m" batch=1 {
      ...
    }
    // -----
    program "m" batch=1 {                    (or lines `// error: ...` with the whole error text)
      ...
    }

The file's name starts with what the pipeline does to the program: `fires` (changes it), `keeps`
(leaves it as it is) or `refuses` (raises).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hecompile.access.policy import FieldLabels, ObjectRef
from hecompile.errors import HecompileError
from hecompile.ir import he_ops, tensor_ops
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline

FOLDER = Path(__file__).parent
SEPARATOR = "// -----\n"
KINDS = ("fires", "keeps", "refuses")
_HEADER = re.compile(r"// (pipeline|calibration|precision|labels): *(.*)")
_CALIBRATION = re.compile(r"seed=(\d+) samples=(\d+)")
_LABELS = re.compile(r"(\w+)(?: axis (\d+))? = (.+)")
_NUMBER = re.compile(r"(?<![\w.%@])-?\d+\.?\d*(?:e[-+]?\d+)?(?![\w.])")
_EVERYTHING = 1 << 62


@dataclass(frozen=True)
class Case:
    """One golden file."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"

    @property
    def folder(self) -> str:
        """Name of the pass that the case belongs to."""
        return self.path.parent.name

    @property
    def kind(self) -> str:
        """What the file's name announces: "fires", "keeps" or "refuses"."""
        kinds = [k for k in KINDS if self.path.stem.startswith(k)]
        if not kinds:
            raise ValueError(f"{self}: a golden file's name starts with {', '.join(KINDS)}")
        return kinds[0]

    @cached_property
    def before(self) -> str:
        """The head and the program that goes in."""
        return self.path.read_text(encoding="utf-8").partition(SEPARATOR)[0]

    @property
    def expected(self) -> str:
        """What the file says that comes out."""
        return self.path.read_text(encoding="utf-8").partition(SEPARATOR)[2]

    @cached_property
    def headers(self) -> dict[str, str]:
        """The head's lines by name."""
        return {m[1]: m[2].strip() for m in map(_HEADER.match, self.before.splitlines()) if m}

    @cached_property
    def program(self) -> Program:
        """The program that goes in."""
        return parse(self.before, source=self.path.name)

    @property
    def context(self) -> Context:
        """The calibration samples, the precision and the labels that the head states."""
        calibration = None
        if text := self.headers.get("calibration"):
            match = _CALIBRATION.fullmatch(text)
            if match is None:
                raise ValueError(f"{self}: write the calibration as 'seed=0 samples=64'")
            calibration = random_inputs(self.program, int(match[2]), int(match[1]))
        precision = self.headers.get("precision")
        return Context(
            calibration, float(precision) if precision else None, labels=tuple(self._labels())
        )

    def _labels(self) -> Iterator[FieldLabels]:
        """What the head says of the inputs."""
        for text in filter(None, self.headers.get("labels", "").split("; ")):
            match = _LABELS.fullmatch(text)
            if match is None:
                raise ValueError(f"{self}: write labels as 'x = vitals.hr; y axis 0 = a b'")
            axis = int(match[2]) if match[2] else None
            yield FieldLabels(ObjectRef.input(match[1]), axis, tuple(match[3].split()))

    def run(self) -> Program:
        """Apply the pipeline to the program.

        Raises:
            HecompileError: the pipeline refuses the program.
        """
        return parse_pipeline(self.headers["pipeline"]).run(self.program, self.context)

    def outcome(self) -> str:
        """What comes out, as the file's second half has it."""
        program = self.program
        try:
            result = self.run()
        except HecompileError as error:
            return "".join(f"// error: {line}\n" for line in str(error).splitlines())
        kept = " (the program is unchanged)" if result == program else ""
        if bool(kept) != (self.kind == "keeps"):
            raise AssertionError(f"{self} is named '{self.kind}', but the pipeline ran{kept}")
        return print_program(result, _EVERYTHING)

    def update(self) -> None:
        """Write what comes out into the file."""
        self.path.write_text(f"{self.before}{SEPARATOR}{self.outcome()}", encoding="utf-8")


def collect_cases(folder: Path = FOLDER) -> list[Case]:
    """Every golden file, in order of its path."""
    return [Case(path) for path in sorted(folder.glob("*/*.hir"))]


def same_text(one: str, other: str) -> bool:
    """Whether two texts agree; numbers may differ in their last digits, as machines do."""
    if one == other:
        return True
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(
        a == b or ("." in a + b and math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=1e-12))
        for a, b in pairs
    )


def random_inputs(program: Program, samples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Samples from N(0, 1) for every input of a program, by label."""
    random = np.random.default_rng(seed)
    dims = {op.label: op.dims for op in program if isinstance(op, tensor_ops.Input | he_ops.Input)}
    return {label: random.normal(size=(samples, *shape)) for label, shape in dims.items()}
