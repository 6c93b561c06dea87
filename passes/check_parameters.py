"""Security of the parameters, re-derived from the primes themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.numeric.security import check_security
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class CheckParameters(Pass):
    """Refuse parameters below 128-bit security, or that do not fit the program.

    The modulus is multiplied out from the primes that SEAL will use, the special prime included,
    and held against the table; primes must be distinct and fit the ring's NTT; every period must
    fit the slots.

    Requires: `choose-parameters`.
    Ensures: the program is unchanged.
    """

    name: ClassVar[str] = "check-parameters"
    after: ClassVar[tuple[str, ...]] = ("choose-parameters",)

    def run(self, program: Program, context: Context) -> Program:
        """Check ring, primes and periods."""
        parameters = program.parameters
        if parameters is None:
            raise PassError(f"{self.name}: run choose-parameters first")
        primes = parameters.primes
        degree = parameters.poly_modulus_degree
        check_security(degree, math.prod(primes).bit_length())
        if len(set(primes)) != len(primes) or any(p % (2 * degree) != 1 for p in primes):
            raise PassError(f"{self.name}: the primes are not distinct NTT primes of ring {degree}")
        for op in program:
            if op.result is None:
                continue
            period = getattr(op.result.type, "period", 1)
            if period > parameters.slots:
                raise PassError(
                    f"{self.name}: {op.result} has a period of {period} slots, the ring only "
                    f"{parameters.slots}"
                )
        steps = {op.steps for op in program.select(he.Rotate)}
        if any(not 0 < s < parameters.slots for s in steps):
            raise PassError(f"{self.name}: a rotation lies outside the {parameters.slots} slots")
        return program
