"""Tokens of the program text, with their positions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hecompile.errors import ProgramError

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|//[^\n]*)
      | (?P<newline>\n)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<digest>sha256:[0-9a-f]{64})
      | (?P<value>%[A-Za-z0-9_.]+)
      | (?P<symbol>@[A-Za-z0-9_./:\-]+)
      | (?P<shape>\d+(?:x\d+)+)
      | (?P<number>[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|inf\b))
      | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<mark>[{}()\[\]<>=,:+])""",
    re.VERBOSE,
)

_LONGEST = 1000
"""Characters of a number; Python refuses to read integers of several thousand digits."""


@dataclass(frozen=True)
class Token:
    """One token: its kind, its text, and where it stands (line and column from 1)."""

    kind: str
    text: str
    line: int
    column: int


class Lexer:
    """A cursor over the tokens of a text."""

    def __init__(self, text: str, source: str) -> None:
        """Cut `text` into tokens; `source` names it in messages.

        Raises:
            ProgramError: a character starts no token.
        """
        self.source = source
        self._tokens: list[Token] = []
        self._next = 0
        line, start, position = 1, 0, 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            column = position - start + 1
            if match is None:
                raise ProgramError(f"{source}:{line}:{column}: '{text[position]}' starts no token")
            if match.lastgroup == "newline":
                line, start = line + 1, match.end()
            elif len(match.group()) > _LONGEST and match.lastgroup in ("number", "shape"):
                raise ProgramError(f"{source}:{line}:{column}: a number is too long")
            elif match.lastgroup != "space":
                self._tokens.append(Token(str(match.lastgroup), match.group(), line, column))
            position = match.end()
        self._tokens.append(Token("end", "", line, position - start + 1))

    @property
    def current(self) -> Token:
        """The token under the cursor."""
        return self._tokens[self._next]

    def advance(self) -> Token:
        """Return the token under the cursor and step over it."""
        token = self.current
        if token.kind != "end":
            self._next += 1
        return token

    def peek(self) -> Token:
        """The token after the current one (the end stays the end)."""
        return self._tokens[min(self._next + 1, len(self._tokens) - 1)]

    def error(self, message: str, token: Token | None = None) -> ProgramError:
        """An error at a token's position (the current one if none is given)."""
        where = token or self.current
        return ProgramError(f"{self.source}:{where.line}:{where.column}: {message}")

    def accept(self, text: str) -> bool:
        """Step over the current token if it reads `text`."""
        if self.current.text == text and self.current.kind in ("mark", "word"):
            self.advance()
            return True
        return False

    def expect(self, text: str) -> None:
        """Step over the token `text`, or raise ProgramError."""
        if not self.accept(text):
            raise self.error(f"expected '{text}', found '{self.current.text or 'end of text'}'")

    def take(self, kind: str, what: str) -> str:
        """Return the text of a token of this kind and step over it, or raise ProgramError."""
        if self.current.kind != kind:
            found = self.current.text or "end of text"
            raise self.error(f"expected {what}, found '{found}'")
        return self.advance().text

    def integer(self, what: str) -> int:
        """Read an integer, or raise ProgramError."""
        token = self.current
        text = self.take("number", what)
        if not re.fullmatch(r"[-+]?\d+", text):
            raise self.error(f"expected {what}, found '{text}'", token)
        return int(text)

    def real(self, what: str) -> float:
        """Read a number as a float, or raise ProgramError."""
        return float(self.take("number", what))

    def string(self, what: str) -> str:
        """Read a quoted string, or raise ProgramError."""
        body = self.take("string", what)[1:-1]
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], body)
