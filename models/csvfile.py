"""A table in a CSV file, read with the line number of every row kept for error messages."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hecompile.errors import InputError
from hecompile.files import cannot_read

MISSING = frozenset({"", "na", "nan", "?"})


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file as text.

    Attributes:
        path: the file, for error messages.
        header: the column names.
        rows: the cells of each row, as many as columns, without surrounding blanks.
        lines: the line in the file where each row ends.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column; raise `InputError` if there is none of that name."""
        if name not in self.header:
            raise InputError(
                f"{self.path}: there is no column '{name}', only {', '.join(self.header)}"
            )
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column as numbers, NaN where a cell is missing, shape (rows,)."""
        values = np.empty(len(self.rows))
        for row, cell in enumerate(self.column(name)):
            values[row] = math.nan if cell.lower() in MISSING else self._number(row, name, cell)
        return values

    def labels(self, name: str) -> npt.NDArray[np.str_]:
        """Return a column as text, shape (rows,); a missing cell is refused."""
        cells = self.column(name)
        for row, cell in enumerate(cells):
            if cell.lower() in MISSING:
                raise InputError(
                    f"{self.path}:{self.lines[row]}: the cell of column '{name}' is missing; "
                    "fill it or leave the line out"
                )
        return np.asarray(cells, dtype=np.str_)

    def moments(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of numbers or ISO 8601 dates as numbers to sort by, shape (rows,)."""
        cells = self.labels(name).tolist()
        try:
            return np.asarray([float(cell) for cell in cells])
        except ValueError:
            return np.asarray([self._date(row, name, cell) for row, cell in enumerate(cells)])

    def _number(self, row: int, name: str, cell: str) -> float:
        try:
            value = float(cell)
        except ValueError:
            value = math.inf
        if not math.isfinite(value):
            raise InputError(
                f"{self.path}:{self.lines[row]}: '{cell}' in column '{name}' is no number; "
                "mend it, or choose the feature columns"
            )
        return value

    def _date(self, row: int, name: str, cell: str) -> float:
        try:
            moment = datetime.fromisoformat(cell)
        except ValueError as error:
            raise InputError(
                f"{self.path}:{self.lines[row]}: '{cell}' in column '{name}' is neither a number "
                "nor an ISO 8601 date"
            ) from error
        # Dates without a zone are compared as they stand, whatever zone this machine is in.
        return (moment.replace(tzinfo=None) - (moment.utcoffset() or _NO_OFFSET) - _EPOCH) / _SECOND


_EPOCH = datetime(1970, 1, 1)
_NO_OFFSET = _EPOCH - _EPOCH
_SECOND = datetime(1970, 1, 1, 0, 0, 1) - _EPOCH


def read_table(path: Path) -> Table:
    """Read a CSV file with a header line; UTF-8, separated by commas.

    Raises:
        InputError: the file cannot be read, is no UTF-8 text, has no rows, names a column twice,
            or has a line with another number of cells than the header.
    """
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = tuple(cell.strip() for cell in next(reader, []))
            _check_header(path, header)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise InputError(
                        f"{path}:{reader.line_num}: {len(cells)} cells where the header has "
                        f"{len(header)}; mend that line"
                    )
                rows.append(tuple(cell.strip() for cell in cells))
                lines.append(reader.line_num)
    except OSError as error:
        raise cannot_read(path, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: this is no CSV file in UTF-8: {error}") from error
    if not rows:
        raise InputError(f"{path}: there are no rows below the header")
    return Table(path, header, tuple(rows), tuple(lines))


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    if not header or not all(header):
        raise InputError(f"{path}: the first line must name every column")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: the column '{twice[0]}' is named twice")
