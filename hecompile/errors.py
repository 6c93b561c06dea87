"""Errors of the compiler and the runtime, each with its exit code on the command line."""

from __future__ import annotations


class HecompileError(Exception):
    """Base of every error that a user can cause and mend.

    Its text is one sentence that says what is wrong, where, and what to do. The command line
    prints it and leaves with `exit_code`.
    """

    exit_code = 1


class InputError(HecompileError):
    """A file, an array or an option value that the user gave cannot be used."""


class UnsupportedError(HecompileError):
    """The model uses something that has no encrypted counterpart here."""


class ProgramError(HecompileError):
    """A program breaks a rule of the intermediate representation."""


class PassError(HecompileError):
    """A pass cannot be applied to this program."""


class PipelineError(HecompileError):
    """A pipeline's text, its options or the order of its passes is wrong."""


class CompileError(HecompileError):
    """No program meets what was asked: precision, depth, memory or security."""


class UsageError(HecompileError):
    """A command was called with words that do not go together."""

    exit_code = 2


class AccessDeniedError(HecompileError):
    """The policy does not grant what was asked; nothing was read, written or sent."""

    exit_code = 3


class IntegrityError(HecompileError):
    """A signature, a digest, a key or an envelope does not match."""

    exit_code = 4
