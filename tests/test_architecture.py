"""The rules that keep the tree readable: import order, file length, number of settings, what --help loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ownchat
from ownchat.config import Config, keys

SOURCE = Path(ownchat.__file__).parent
ORDER = (
    "errors", "config", "artifacts", "monitor", "data", "clean", "tokenizer", "model", "generate", "evaluate", "train",
    "serve", "pipeline", "cli",
)  # fmt: skip
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = {
    "torch", "transformers", "peft", "tokenizers", "pyarrow", "numpy", "matplotlib", "sacrebleu", "fastapi",
    "sqlalchemy", "uvicorn", "prometheus_client", "xllamacpp", "openai", "daft", "ray", "pandas", "scipy", "ftfy",
}  # fmt: skip


def part(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    """Parts of ownchat that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = {name.split(".")[1] for name in names if name.startswith("ownchat.")}
    return parts & set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    mine = part(path)
    if mine in ("__init__", "__main__"):
        return
    assert mine in ORDER, f"{mine} is not part of the tree"
    later = {name for name in imported(path) if ORDER.index(name) > ORDER.index(mine)}
    assert not later, f"{path.name} ({mine}) imports {later}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_no_file_for_leftovers() -> None:
    assert not [path for path in FILES if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_every_setting_is_known_and_described() -> None:
    assert len(keys()) == 100, "a setting more or less is a decision: say so here and in docs/configuration.md"
    for section in Config.model_fields.values():
        for name, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.description, name


def test_every_setting_is_used() -> None:
    """An accepted setting that nothing reads is a lie."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES if path.parent.name != "config")
    unused = [
        key
        for section, _, key in (name.partition(".") for name in keys())
        if not re.search(rf"\b(config|settings|{section})\.{key}\b", text)
    ]
    assert not unused


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nsys.argv = ['ownchat', *" + repr(arguments) + "]\n"
        "from ownchat.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split("LOADED", 1)[1].split())
    assert "typer" in loaded and not loaded & HEAVY


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, ownchat; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


def test_public_names_are_these() -> None:
    assert sorted(ownchat.__all__) == [
        "Config",
        "Redactor",
        "Request",
        "chat_engine",
        "load_config",
        "redact",
        "train_model",
    ]
    for name in ownchat.__all__:
        assert callable(getattr(ownchat, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ownchat.nothing


def test_no_word_of_how_it_was_made() -> None:
    root = SOURCE.parent.parent
    words = ["/work/" + "main", "/tmp/" + "w/", "." + "library", "pypi" + ".org", "files.python" + "hosted"]
    for path in [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("*.lock"), *FILES, root / "Makefile"]:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], path
