"""``python -O`` takes every ``assert`` out: nothing that protects may be one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_attacks_are_held_without_asserts() -> None:
    """pytest keeps the tests' own asserts (it rewrites them); those of the package are gone."""
    tests = Path(__file__).parent
    files = [str(path) for path in sorted(tests.glob("test_attacks*.py"))]
    done = subprocess.run(
        [sys.executable, "-O", "-m", "pytest", "-p", "no:cacheprovider", *files],
        cwd=tests.parent.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and "failed" not in done.stdout


def test_the_package_protects_by_no_assert() -> None:
    import ast

    import ownchat.serve

    for path in Path(ownchat.serve.__file__).parent.rglob("*.py"):
        found = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
        assert not found, (path, found)
