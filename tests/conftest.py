"""Options and fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run, so that a change alone turns a test red. Wider and new ones:
# HYPOTHESIS_PROFILE=default, and the tests marked slow.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the expected half of every golden file with what the pipeline gives",
    )


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with data sets and reference models that lies beside the checkout."""
    path = Path(os.environ.get("HECOMPILE_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no reference data: {path} is not a folder (HECOMPILE_SHARED names another)")
    return path


@pytest.fixture(autouse=True)
def hecompile_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty HECOMPILE_HOME, so that no test reads or writes the user's keys and settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HECOMPILE_HOME", str(home))
    return home
