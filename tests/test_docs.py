"""Documentation is executed: console blocks run, Python blocks run, generated pages are current."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from ownchat import artifacts
from ownchat.config import load_config, options_page
from ownchat.evaluate.general import read_probes
from ownchat.model import starter

ROOT = Path(__file__).parent.parent
THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]


def typed(page: Path) -> list[str]:
    """The commands of a page's consoles."""
    return [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def workplace(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``inbox``; the home's starter is the tiny model, so that nothing is fetched."""
    root = tmp_path_factory.mktemp("reader")
    home = root / "home" / "models" / starter.NAME
    shutil.copytree(tiny_model, home)
    (home / artifacts.MANIFEST).write_text('{"package": "a tiny stand-in"}')
    (root / "inbox").mkdir()
    rows = "".join(f"What about {thing} {n}?,The {thing} {n} is fine.\n" for n in range(5) for thing in THINGS)
    (root / "inbox" / "faq.csv").write_text("question,answer\n" + rows)
    return root


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def ownchat(arguments: list[str], workplace: Path) -> subprocess.CompletedProcess[str]:
    """The program in ``workplace``, with the home there."""
    return subprocess.run(
        [sys.executable, "-m", "ownchat", *arguments],
        cwd=workplace,
        env=os.environ | {"OWNCHAT_HOME": str(workplace / "home")},
        capture_output=True,
        text=True,
    )


def typed_runs(
    page: str, workplace: Path, number: int
) -> Iterator[tuple[str, list[str], subprocess.CompletedProcess[str]]]:
    """Each of the ``number`` commands of a page of docs, its arguments, and what it did."""
    commands = typed(ROOT / "docs" / page)
    assert len(commands) == number
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "ownchat"
        yield command, arguments, ownchat(arguments, workplace)


@pytest.mark.slow
def test_walkthrough_runs(workplace: Path) -> None:
    page = ROOT / "docs" / "walkthrough.md"
    commands = typed(page)
    assert len(commands) >= 8
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "ownchat"
        if arguments[:2] == ["runs", "--delete"]:  # the last command that needs the run: use the result before
            (code,) = blocks(page, "python")
            directory = workplace / "home" / "runs" / "support" / "5-train" / "model"
            subprocess.run([sys.executable, "-c", f"directory = {str(directory)!r}\n{code}"], check=True)
        done = ownchat(arguments, workplace)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command


@pytest.mark.long
def test_plan_page_runs(workplace: Path) -> None:
    for command, _, done in typed_runs("plan.md", workplace, 4):
        assert done.returncode == 0 and "Memory" in done.stdout, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_preferences_page_runs(workplace: Path) -> None:
    page = ROOT / "docs" / "preferences.md"
    rows = [
        {"prompt": f"What about {thing} {n}?", "chosen": f"The {thing} {n} is fine.", "rejected": "No idea."}
        for thing in THINGS for n in range(5)
    ]  # fmt: skip
    assert json.loads(blocks(page, "json")[0]).keys() == rows[0].keys()
    (workplace / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command, _, done in typed_runs("preferences.md", workplace, 2):
        assert done.returncode == 0 and "preference pair" in done.stdout, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.long
def test_pretraining_page_runs(workplace: Path) -> None:
    page = ROOT / "docs" / "pretraining.md"
    (workplace / "library").mkdir()
    draw, words = random.Random(0), (ROOT / "docs" / "data.md").read_text(encoding="utf-8").split()

    def sentence() -> str:  # of its own, so that no two are near duplicates
        return " ".join(draw.sample(words, 12)).replace('"', "")

    rows = [f'"{sentence()}?","{sentence()}."' for _ in range(60)]
    (workplace / "library" / "faq.csv").write_text("question,answer\n" + "\n".join(rows) + "\n")
    chapters = [f"Chapter {number}\n\n" + ". ".join(sentence() for _ in range(5)) for number in range(40)]
    (workplace / "library" / "manual.txt").write_text("\n\n".join(chapters))
    commands = typed(page)
    assert len(commands) == 2
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "ownchat"
        done = ownchat(arguments, workplace)
        assert done.returncode == 0 and "Bits per byte" in done.stdout, f"{command}\n{done.stdout}\n{done.stderr}"
        name = "library-mixed" if "--name" in arguments else "library"
        phases = workplace / "home" / "runs" / name / "5-train"
        assert (phases / "pretrain" / "samples.jsonl").is_file() and (phases / "sft" / "result.json").is_file()


@pytest.mark.slow
def test_sweep_page_runs(workplace: Path) -> None:
    page = ROOT / "docs" / "sweep.md"
    commands = typed(page)
    assert len(commands) == 3
    for command in commands:
        program, *arguments = shlex.split(command.replace("~/.ownchat", str(workplace / "home")))
        assert program == "ownchat"
        if "optuna" in arguments and find_spec("optuna") is None:
            continue
        done = ownchat(arguments, workplace)
        assert done.returncode == 0 and done.stdout.strip(), f"{command}\n{done.stdout}\n{done.stderr}"
        if arguments[0] == "sweep":
            assert "It is trained" in done.stdout
        else:
            assert "steps," in done.stdout and "held-out" in done.stdout.lower()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/formats.md",
        "docs/scale-data.md",
        "docs/tracking.md",
        "docs/report.md",
        "docs/export.md",
        "docs/from-scratch.md",
        "docs/evaluation.md",
        "docs/hosted.md",
        "docs/migrate.md",
    ],
)
def test_commands_exist(page: str) -> None:
    commands = [
        line.split("#")[0].strip() for block in blocks(ROOT / page, "sh") for line in block.splitlines() if line.strip()
    ]
    assert commands
    if page == "README.md":
        assert {"make demo", "make test"} <= set(commands)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M)
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "make":
            assert arguments[0] in targets
        elif program == "ownchat":
            flags = [argument for argument in arguments if argument.startswith("--")]
            given = [after for before, after in pairwise(arguments) if before == "--set"]
            if arguments[0] != "sweep":  # whose --set holds several values
                load_config(sets=given)
            name = arguments[: 2 if arguments[0] in ("prompt", "tokenizer", "migrate") else 1]
            shown = subprocess.run(
                [sys.executable, "-m", "ownchat", *name, "--help"], capture_output=True, text=True, check=True
            ).stdout
            assert all(flag in shown for flag in flags), command


def test_settings_page_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == options_page(), "run: make docs"


def test_readme_tree_is_the_tree() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = {path.name for path in (ROOT / "src" / "ownchat").iterdir() if path.is_dir() and path.name[0] != "_"}
    for folder in folders:
        assert f"{folder}/" in readme, folder


def test_private_data_example_holds() -> None:
    (code,) = blocks(ROOT / "docs" / "private-data.md", "python")
    exec(code, {})


@pytest.mark.slow
def test_tokenizer_page_runs(workplace: Path) -> None:
    page = ROOT / "docs" / "tokenizer.md"
    commands = typed(page)
    assert len(commands) == 3
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "ownchat"
        done = ownchat(arguments, workplace)
        assert done.returncode == 0 and "come back exactly" in done.stdout, f"{command}\n{done.stdout}\n{done.stderr}"
        if "--json" in arguments:
            assert json.loads(done.stdout.splitlines()[-1])["not_exact"] == 0


@pytest.mark.slow
def test_export_page_runs(workplace: Path) -> None:
    page = ROOT / "docs" / "export.md"
    commands = typed(page)
    assert len(commands) == 6
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "ownchat"
        done = ownchat(arguments, workplace)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if arguments[0] == "export":
            assert "at most" in done.stdout and "\n$ " in done.stdout, done.stdout


@pytest.mark.slow
def test_prompts_page_runs(workplace: Path) -> None:
    page = ROOT / "docs" / "prompts.md"
    (workplace / "support.yaml").write_text(blocks(page, "yaml")[0])
    for command, arguments, done in typed_runs("prompts.md", workplace, 10):
        assert done.returncode == 0 and done.stdout.strip(), f"{command}\n{done.stdout}\n{done.stderr}"
        if arguments[1:2] == ["compare"]:
            assert "support@1" in done.stdout and "difference:" in done.stdout
    note = workplace / "home" / "runs" / "prompted" / "5-train" / "model" / "ownchat.json"
    assert json.loads(note.read_text())["system"] == "You answer customers of Acme in one or two sentences."


@pytest.mark.slow
def test_ladder_page_runs(workplace: Path) -> None:
    for command, arguments, done in typed_runs("ladder.md", workplace, 3):
        assert done.returncode == 0 and "What to do: " in done.stdout, f"{command}\n{done.stdout}\n{done.stderr}"
        if "--json" in arguments:
            plain, *_ = json.loads(done.stdout.splitlines()[-1])["rungs"]
            assert {"name", "score", "low", "high", "cost"} <= plain.keys()


@pytest.mark.long
def test_evaluation_page_runs(workplace: Path) -> None:
    for command, _, done in typed_runs("evaluation.md", workplace, 6):
        good = (0, 1) if "require" in command else (0,)  # 1: the figures are there, and a gate was not passed
        assert done.returncode in good and done.stdout.strip(), f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_policy_page_runs(workplace: Path) -> None:
    for command, _, done in typed_runs("policy.md", workplace, 3):
        assert done.returncode == 0 and done.stdout, f"{command}\n{done.stdout}\n{done.stderr}"
        if "out_of_scope" in command:
            assert done.stdout == "Ask me about pumps.\n" and "withheld" in done.stderr


@pytest.mark.slow
def test_care_page_runs(workplace: Path) -> None:
    page = ROOT / "docs" / "care.md"
    rows = [
        [{"role": "user", "content": f"What is a {thing}?"}, {"role": "assistant", "content": f"A {thing}, of course."}]
        for thing in ("lake", "poem", "stone", "clock")
    ]
    (workplace / "general.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    for command, _, done in typed_runs("care.md", workplace, 4):
        good = (0, 1) if "require" in command else (0,)  # 1: the figures are there, and a gate was not passed
        assert done.returncode in good and done.stdout.strip(), f"{command}\n{done.stdout}\n{done.stderr}"
        if "replay" in command:
            assert "4 general rows of general.jsonl" in done.stdout
    (workplace / "mine.jsonl").write_text(blocks(page, "json")[0])
    assert len(read_probes([workplace / "mine.jsonl"])[1].questions) == 1
