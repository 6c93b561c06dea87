"""Small passes that the tests of pipelines and observers run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import tensor_ops as to
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import TensorType
from hecompile.passbase import Context, Pass


@dataclass(frozen=True)
class Rename(Pass):
    """Give the program another name."""

    name: ClassVar[str] = "t-rename"
    to: str
    times: int = 1
    strength: float = 0.5
    loud: bool = False
    limit: int | None = None

    def run(self, program: Program, context: Context) -> Program:
        context.note(f"{program.name} becomes {self.to}")
        return program.replace(name=self.to * self.times)


@dataclass(frozen=True)
class Idle(Pass):
    """Change nothing."""

    name: ClassVar[str] = "t-idle"
    after: ClassVar[tuple[str, ...]] = ("t-rename", "t-break")

    def run(self, program: Program, context: Context) -> Program:
        return program


@dataclass(frozen=True)
class Break(Pass):
    """Leave an invalid program."""

    name: ClassVar[str] = "t-break"

    def run(self, program: Program, context: Context) -> Program:
        lost = Value("lost", TensorType((2,)))
        return program.replace(operations=(to.Output(x=lost, label="y"),))


@dataclass(frozen=True)
class Refuse(Pass):
    """Refuse every program."""

    name: ClassVar[str] = "t-refuse"

    def run(self, program: Program, context: Context) -> Program:
        context.samples(self.name)
        raise PassError("t-refuse: never")


def tiny_program() -> Program:
    """`y = -x`."""
    b = Builder(name="tiny")
    x = b.emit(to.Input(label="x", dims=(2,)), "x")
    b.keep(to.Output(x=b.emit(to.Neg(x=x), "y"), label="y"))
    return b.finish()
