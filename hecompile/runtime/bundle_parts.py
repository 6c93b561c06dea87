"""What each party reads of a bundle whose files were checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hecompile.bundle.layout import CONSTANTS_FILE, PROGRAM_FILE, SPEC_FILE
from hecompile.bundle.store import BundleFiles
from hecompile.errors import IntegrityError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.runtime.evaluator import galois_steps
from hecompile.runtime.model_weights import OWNER_FILE, read_owner
from hecompile.runtime.program_files import Server, load_program
from hecompile.runtime.spec import ClientSpec, program_id
from hecompile.runtime.spec_json import spec_from_json


def read_spec(files: BundleFiles) -> ClientSpec:
    """What client and key holder need of a bundle, bound to its manifest."""
    return replace(spec_from_json(files.read(SPEC_FILE)), manifest=files.manifest.digest)


def read_server(files: BundleFiles) -> Server:
    """The evaluator's files, as they are handed to its process."""
    return Server(files.read(PROGRAM_FILE), files.read(CONSTANTS_FILE))


def read_weights(files: BundleFiles, spec: ClientSpec) -> dict[str, Array] | None:
    """The model owner's weights by value name; None for a program whose weights are plain.

    Raises:
        InputError: The bundle was exported without them.
        IntegrityError: They are not the program's.
    """
    if not files.manifest.encrypted_model:
        return None
    return read_owner(files.read(OWNER_FILE), read_program(files, spec))


def read_program(files: BundleFiles, spec: ClientSpec) -> Program:
    """The encrypted program of a bundle.

    Raises:
        IntegrityError: It is not the one that the client's specification is for, hides less than
            the manifest states, or rotates by other steps than it grants keys for (S7).
    """
    server = read_server(files)
    program = load_program(server.program, server.constants, f"{files.path}/{PROGRAM_FILE}")
    if program_id(program) != spec.program:
        raise IntegrityError(
            f"bundle {files.path}: client and server parts are of different programs; compile"
            " again."
        )
    stated = files.manifest.refresh.mask_bits
    hidden = min((op.mask_bits for op in program.select(he.Refresh)), default=stated)
    if hidden < stated:
        raise IntegrityError(
            f"bundle {files.path} promises masks of {stated} bits, and its program has some of"
            f" {hidden}; have it compiled again."
        )
    used, granted = galois_steps(program), files.manifest.galois_steps
    if used != granted:
        raise IntegrityError(
            f"bundle {files.path} grants keys for rotations by {_steps(granted)}, and its program"
            f" rotates by {_steps(used)} (rule S7); have it compiled again."
        )
    return program


def _steps(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) or "no step"
