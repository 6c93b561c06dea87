"""`hecompile opt`: run passes on a program in text form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, json_option, load_option, observer_options, output_option

if TYPE_CHECKING:
    from hecompile.cli.watching import WatchOptions
    from hecompile.ir.program import Program
    from hecompile.passbase import Context

STDIN = "-"


@click.command("opt")
@click.argument("program", type=PATH)
@click.option("--passes", "text", default="", metavar="TEXT", help="As in 'cse,dce{...}'.")
@click.option("--stop-after", metavar="PASS", help="Leave out the passes behind this one.")
@click.option(
    "--constants",
    type=PATH,
    metavar="FILE.npz",
    help="Constants that the text names by digest; by default PROGRAM's name with .constants.npz.",
)
@click.option(
    "--calibration", type=PATH, metavar="FILE.npz", help="Samples for the passes that need them."
)
@click.option("--precision", type=float, help="Largest error allowed on the outputs.")
@output_option("Where the program goes, its constants beside it; by default stdout.")
@observer_options
@load_option
@json_option
def command(
    program: Path,
    text: str,
    stop_after: str | None,
    constants: Path | None,
    calibration: Path | None,
    precision: float | None,
    output: Path | None,
    watch: WatchOptions,
    load: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Run passes on the program in the file PROGRAM ('-' for stdin) and print what they leave."""
    from hecompile.ir.printer import print_program
    from hecompile.passbase import load_file
    from hecompile.pipeline import parse_pipeline

    for path in load:
        load_file(path)
    pipeline = parse_pipeline(text)
    if stop_after is not None:
        pipeline = pipeline.stop_after(stop_after)
    watching = watch.start()
    before = read_program(program, constants)
    after = pipeline.run(before, _context(before, calibration, precision), watching.observers)
    watching.tell()
    printed = print_program(after)
    if output is not None:
        _write(output, printed, after)
    elif named := _named_by_digest(after):
        console.say(
            f"note: {console.counted(len(named), 'constant')} too large for the text, named by "
            "digest; -o FILE.hir writes what is left out beside it"
        )
    document = {
        "pipeline": str(pipeline),
        "changed": after != before,
        "program": printed,
        "output": output,
        "timing": watching.rows(),
    }
    console.result(document, "" if output is not None else printed, as_json)


def constants_path(program: Path) -> Path:
    """Where the constants of a program in text form are: `in.hir` has `in.constants.npz`."""
    return program.with_suffix(".constants.npz")


def read_program(path: Path, constants: Path | None) -> Program:
    """Read a program and its constants.

    Raises:
        InputError: A file cannot be read.
        ProgramError: The text is no program, or a constant is missing.
    """
    from hecompile.errors import InputError
    from hecompile.files import cannot_read
    from hecompile.ir.parser import parse
    from hecompile.npz import load_npz

    try:
        data = sys.stdin.buffer.read() if str(path) == STDIN else path.read_bytes()
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no program: it is not UTF-8 text") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    if constants is None and str(path) != STDIN and constants_path(path).exists():
        constants = constants_path(path)
    arrays = load_npz(constants) if constants is not None else {}
    return parse(text, arrays, "<stdin>" if str(path) == STDIN else str(path))


def _context(program: Program, calibration: Path | None, precision: float | None) -> Context:
    from hecompile.calibration import prepare_calibration
    from hecompile.npz import load_npz
    from hecompile.passbase import Context

    if calibration is None:
        return Context(None, precision, console.say)
    samples = prepare_calibration(program, load_npz(calibration))
    return Context(samples.fit, precision, console.say)


def _named_by_digest(program: Program) -> list[str]:
    from hecompile.ir.printer import INLINE_ELEMENTS

    return [s for s, c in program.constants.items() if c.array.size > INLINE_ELEMENTS]


def _write(path: Path, text: str, program: Program) -> None:
    """Write the constants first: a program whose constants are missing cannot be read."""
    from hecompile.files import atomic_write_bytes, atomic_write_text
    from hecompile.npz import npz_bytes

    if named := _named_by_digest(program):
        data = npz_bytes({symbol: program.array(symbol) for symbol in named})
        atomic_write_bytes(constants_path(path), data)
    atomic_write_text(path, text)
