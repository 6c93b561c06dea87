"""The command line: `hecompile COMMAND ...`.

Each command is a module that is imported only when it is called, so that a machine that runs
bundles needs none of the compiler's packages and the help appears at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hecompile.cli.guard import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after the program's name; None takes the process's own.

    Returns:
        The exit code: 0 done, 1 the input or the program is at fault, 2 usage, 3 access denied,
        4 integrity or signature, 130 interrupted, 143 terminated.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)

    def command() -> object:
        from hecompile.cli.group import hecompile

        return hecompile.main(words, prog_name="hecompile", standalone_mode=False)

    return guarded(command)
