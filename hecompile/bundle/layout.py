"""Names of the files in a bundle."""

from __future__ import annotations

from typing import Final

SPEC_FILE: Final = "client/spec.json"
PROGRAM_FILE: Final = "server/program.hir"
CONSTANTS_FILE: Final = "server/constants.npz"
REPORT_FILE: Final = "report.json"
