"""What the client and the key holder must know of a program: its inputs, outputs and refreshes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hecompile.errors import InputError, IntegrityError, ProgramError
from hecompile.files import sha256_bytes
from hecompile.ir import he_ops
from hecompile.ir.gathers import gather_of
from hecompile.ir.operation import Value
from hecompile.ir.parcels import Parcel, parcels
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.ir.public import public_form
from hecompile.ir.types import CipherType, Layout
from hecompile.numeric.parameters import Parameters
from hecompile.preprocess import Step
from hecompile.runtime.ranges import Ranges
from hecompile.runtime.slot_runs import SlotRuns

UNBOUND: Final = ""
"""Stands for the digest of a manifest where there is none."""


def program_id(program: Program) -> str:
    """Identify a program: SHA-256 of its text, which holds the digests of its constants.

    Encrypted weights do not count: owner and evaluator have the same program.
    """
    return sha256_bytes(print_program(public_form(program)).encode("utf-8"))


@dataclass(frozen=True)
class CipherSpec:
    """One ciphertext that travels.

    Attributes:
        name: The value's name in the program.
        period: Slots after which its slot vector repeats.
        level: Its level.
        scale: Its exact scale.
        layout: Where a tensor's elements are; None where only the evaluator knows.
        gather: Element of each place of an input, -1 for none; None where the layout says it.
        stride: Slots of a place, for `gather`.
    """

    name: str
    period: int
    level: int
    scale: float
    layout: Layout | None = None
    gather: tuple[int, ...] | None = None
    stride: int = 1


@dataclass(frozen=True)
class InputSpec:
    """One input of the model.

    Attributes:
        label: Its name.
        dims: Shape of one sample, the leading model axis included.
        ciphertexts: How it is packed.
        ranges: Ranges seen in calibration, after preprocessing; None if not known.
        preprocessing: Steps that turn raw samples into what the model takes.
    """

    label: str
    dims: tuple[int, ...]
    ciphertexts: tuple[CipherSpec, ...]
    ranges: Ranges | None = None
    preprocessing: tuple[Step, ...] = ()


@dataclass(frozen=True)
class OutputSpec:
    """One output of the model.

    Attributes:
        label: Its name.
        dims: Shape for one sample, the leading model axis included.
        ciphertexts: How it is packed.
        post: Steps after decryption, in order.
        ranges: Ranges that its raw values had in calibration, widened; None if not known.
    """

    label: str
    dims: tuple[int, ...]
    ciphertexts: tuple[CipherSpec, ...]
    post: tuple[str, ...] = ()
    ranges: Ranges | None = None


@dataclass(frozen=True)
class RefreshSpec:
    """One round trip to the key holder.

    Attributes:
        group: Number of the round's group in the program.
        request: Ciphertexts that come, masked, named after the refreshed values in them.
        response: Ciphertexts that go back, named after the results.
        taken: Where the slots of each of them come from: which of `values`.
        imaginary: The second value in each ciphertext of the request, see `ir.parcels`; None
            where there is none.
    """

    group: int
    request: tuple[CipherSpec, ...]
    response: tuple[CipherSpec, ...]
    taken: tuple[SlotRuns, ...]
    imaginary: tuple[CipherSpec | None, ...]

    @property
    def parcels(self) -> tuple[tuple[CipherSpec, ...], ...]:
        """The one or two values in each ciphertext of the request."""
        pairs = zip(self.request, self.imaginary, strict=True)
        return tuple((x,) if y is None else (x, y) for x, y in pairs)

    @property
    def values(self) -> tuple[CipherSpec, ...]:
        """What comes, ciphertext by ciphertext, each value once."""
        return tuple(value for parcel in self.parcels for value in parcel)


@dataclass(frozen=True)
class ClientSpec:
    """All that encrypting, refreshing and decrypting need besides keys.

    Attributes:
        program: Identity of the program, from `program_id`.
        parameters: Encryption parameters.
        batch: Samples packed into one evaluation.
        inputs: The model's inputs.
        outputs: The model's outputs.
        refreshes: Round trips in order of execution.
        manifest: Digest of the manifest of the bundle it was read from, to which keys and
            envelopes are bound; `UNBOUND` for a program that is in no bundle.
    """

    program: str
    parameters: Parameters
    batch: int
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    refreshes: tuple[RefreshSpec, ...] = ()
    manifest: str = UNBOUND

    def __post_init__(self) -> None:
        """Refuse ciphertexts that these parameters cannot hold.

        Raises:
            ProgramError: A level, period, layout, element or slot does not exist, or ranges are
                of another number of elements.
        """
        if self.batch < 1:
            raise ProgramError(f"the batch is 1 or more, not {self.batch}.")
        for round_ in self.refreshes:
            _check_round(round_)
        rounds = tuple(c for r in self.refreshes for c in (*r.values, *r.response))
        for cipher in (*self.input_ciphertexts, *self.output_ciphertexts, *rounds):
            if cipher.level > self.parameters.levels:
                raise ProgramError(
                    f"%{cipher.name} is at level {cipher.level}, above {self.parameters.levels}."
                )
            if cipher.period & (cipher.period - 1) or cipher.period > self.parameters.slots:
                raise ProgramError(
                    f"%{cipher.name} has a period of {cipher.period} in {self.parameters.slots}"
                    " slots."
                )
            if cipher.layout is not None and cipher.layout.end > cipher.period:
                raise ProgramError(f"%{cipher.name}: layout {cipher.layout} exceeds its period.")
        for cipher in (*self.output_ciphertexts, *rounds):
            if cipher.gather is not None:
                raise ProgramError(f"%{cipher.name} is no input, but says what to gather.")
        for entry in self.inputs:
            for cipher in entry.ciphertexts:
                _check_gather(cipher, math.prod(entry.dims), self.batch)
            _check_ranges(entry.label, entry.dims, entry.ranges)
        for port in self.outputs:
            _check_ranges(port.label, port.dims, port.ranges)

    @property
    def input_ciphertexts(self) -> tuple[CipherSpec, ...]:
        """Every input ciphertext, in the order in which they travel."""
        return tuple(c for entry in self.inputs for c in entry.ciphertexts)

    @property
    def output_ciphertexts(self) -> tuple[CipherSpec, ...]:
        """Every output ciphertext, in the order in which they travel."""
        return tuple(c for entry in self.outputs for c in entry.ciphertexts)

    def refresh(self, group: int) -> RefreshSpec:
        """The round of a group.

        Raises:
            IntegrityError: The program has no such round.
        """
        for entry in self.refreshes:
            if entry.group == group:
                return entry
        raise IntegrityError(f"the program has no refresh round {group}; nothing was decrypted.")


def _check_round(entry: RefreshSpec) -> None:
    """Refuse a round whose results take what does not come."""
    if len(entry.imaginary) != len(entry.request):
        raise ProgramError(f"refresh round {entry.group} does not say which values come together.")
    if len({c.name for c in entry.values}) != len(entry.values):
        raise ProgramError(f"refresh round {entry.group} has a value come twice.")
    for first, *others in entry.parcels:
        if any(other.level != first.level for other in others):
            raise ProgramError(f"%{first.name} comes with a value of another level.")
    if len(entry.taken) != len(entry.response):
        raise ProgramError(f"refresh round {entry.group} does not say what its results take.")
    periods = [cipher.period for cipher in entry.values]
    for cipher, runs in zip(entry.response, entry.taken, strict=True):
        runs.check(cipher.name, cipher.period, periods)


def _check_ranges(label: str, dims: tuple[int, ...], ranges: Ranges | None) -> None:
    """Refuse ranges of elements that the input or output does not have."""
    told, size = len(ranges.lower) if ranges is not None else 0, math.prod(dims)
    if told and told != size:
        raise ProgramError(f"'{label}' has the ranges of {told} elements, but {size} elements.")


def _check_gather(cipher: CipherSpec, size: int, batch: int) -> None:
    """Refuse places that a client cannot fill from an input of `size` elements."""
    places, name = cipher.gather, f"%{cipher.name}"
    if places is None:
        if cipher.stride != 1:
            raise ProgramError(f"{name} has a stride, but no places.")
        return
    if cipher.layout is not None:
        raise ProgramError(f"{name} has both a layout and places.")
    if cipher.stride < batch:
        raise ProgramError(f"{name}: {batch} samples do not fit places of {cipher.stride} slots.")
    if len(places) * cipher.stride != cipher.period:
        raise ProgramError(f"{name}: its places do not fill its period.")
    if not -1 <= min(places) <= max(places) < size or max(places) < 0:
        raise ProgramError(f"{name}: its places hold elements that its input does not have.")


def spec_from_program(
    program: Program,
    preprocessing: Mapping[str, Sequence[Step]] | None = None,
    ranges: Mapping[str, Ranges] | None = None,
    output_ranges: Mapping[str, Ranges] | None = None,
) -> ClientSpec:
    """Take from a finished program what client and key holder need.

    Args:
        program: With levels and scales assigned.
        preprocessing: Steps by input label.
        ranges: Calibration ranges by input label, after preprocessing.
        output_ranges: Calibration ranges by output label, before post-processing.

    Raises:
        ProgramError: Parameters, a layout, a level or a scale is missing.
        InputError: `preprocessing` or `ranges` names no input, or `output_ranges` no output.
    """
    if program.parameters is None:
        raise ProgramError(f"program '{program.name}' has no encryption parameters yet.")
    found: dict[str, list[he_ops.Input]] = {}
    for op in program.select(he_ops.Input):
        found.setdefault(op.label, []).append(op)
    for label in (*(preprocessing or ()), *(ranges or ())):
        if label not in found:
            raise InputError(f"the program has no input '{label}'; it has {', '.join(found)}.")
    inputs = tuple(
        InputSpec(
            label,
            ops[0].dims,
            tuple(_input_cipher(program, op) for op in ops),
            (ranges or {}).get(label),
            tuple((preprocessing or {}).get(label, ())),
        )
        for label, ops in found.items()
    )
    outputs = tuple(
        OutputSpec(
            op.label,
            op.dims,
            tuple(_cipher(x, need_layout=True) for x in op.xs),
            op.post,
            (output_ranges or {}).get(op.label),
        )
        for op in program.select(he_ops.Output)
    )
    known = [entry.label for entry in outputs]
    for label in output_ranges or ():
        if label not in known:
            raise InputError(f"the program has no output '{label}'; it has {', '.join(known)}.")
    return ClientSpec(
        program_id(program),
        program.parameters,
        program.batch,
        inputs,
        outputs,
        refresh_specs(program),
    )


def refresh_specs(program: Program) -> tuple[RefreshSpec, ...]:
    """Collect the refresh rounds of a program in order.

    Raises:
        ProgramError: The refreshes of one group do not follow one another, or one takes what
            there is not.
    """
    groups: dict[int, list[he_ops.Refresh]] = {}
    previous: int | None = None
    for op in program:
        if not isinstance(op, he_ops.Refresh):
            previous = None
            continue
        if op.group != previous and op.group in groups:
            raise ProgramError(
                f"program '{program.name}': the refreshes of group {op.group} are not contiguous."
            )
        groups.setdefault(op.group, []).append(op)
        previous = op.group
    found = parcels(program)
    return tuple(_round(program, found[group], ops) for group, ops in groups.items())


def _round(program: Program, sent: Sequence[Parcel], ops: Sequence[he_ops.Refresh]) -> RefreshSpec:
    values = [value for parcel in sent for value in parcel.values]
    places = {value.name: place for place, value in enumerate(values)}
    taken = (SlotRuns.of(gather_of(op, program), [places[x.name] for x in op.xs]) for op in ops)
    return RefreshSpec(
        ops[0].group,
        tuple(_cipher(parcel.values[0]) for parcel in sent),
        tuple(_cipher(op.defined) for op in ops),
        tuple(taken),
        tuple(_cipher(p.values[1]) if len(p.values) > 1 else None for p in sent),
    )


def _input_cipher(program: Program, op: he_ops.Input) -> CipherSpec:
    if op.gather is not None:
        places = tuple(int(i) for i in program.array(op.gather))
        return replace(_cipher(op.defined), gather=places, stride=op.stride)
    return replace(_cipher(op.defined), layout=Layout(op.first, op.count, op.stride))


def _cipher(value: Value, need_layout: bool = False) -> CipherSpec:
    type_ = value.type
    if not isinstance(type_, CipherType) or type_.level is None or type_.scale is None:
        raise ProgramError(f"{value} : {type_} has no level and scale yet; run all passes first.")
    if need_layout and type_.layout is None:
        raise ProgramError(f"{value} is an input or output, but its layout is not known.")
    return CipherSpec(value.name, type_.period, type_.level, type_.scale, type_.layout)
