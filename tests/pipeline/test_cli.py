"""The program as people use it: whole runs on a small model, and every mistake they can make."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
QUICK = ["--set", "train.batch_tokens=400", "--set", "evaluate.answers=4", "--set", "evaluate.answer_tokens=8",
         "--set", "evaluate.care={checks: []}"]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def faq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inbox") / "company-faq"
    folder.mkdir()
    with open(folder / "faq.csv", "w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["id", "question", "answer"])
        for n, thing in enumerate(THINGS * 5):
            table.writerow([n, f"What about {thing} number {n}?", f"The {thing} {n} is fine, thank you for asking."])
    return folder


def ownchat(home: Path, *arguments: object, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ownchat", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        env=os.environ | {"OWNCHAT_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "80"},
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def trained(home: Path, faq: Path, tiny_model: Path) -> dict:
    done = ownchat(home, "train", faq, "--base", tiny_model, "--system", "Be brief.", *QUICK, "--json")
    return {"stdout": done.stdout, "report": json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr}


def test_report_has_what_was_promised(home: Path, trained: dict) -> None:
    report = trained["report"]
    for who in ("base", "tuned"):
        for score in ("loss", "perplexity", "bits_per_byte", "chrf"):
            figures = report["held_out"][who][score]
            assert figures["low"] <= figures["value"] <= figures["high"], (who, score)
    assert report["held_out"]["tuned"]["loss"]["value"] < report["held_out"]["base"]["loss"]["value"]
    assert all(report["training"][name] > 0 for name in ("tokens_per_second", "seconds", "peak_memory_bytes"))
    assert report["ledger"]["1-data"]["row"]["in"] == 50
    run = home / "runs" / "company-faq"
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {
        "config.yaml", "request.json", "1-data", "2-clean", "3-tokenizer", "4-tokens", "5-train", "6-report",
    }  # fmt: skip
    assert len(list(run.rglob("report.json"))) == 1
    assert "derived (default of lora)" in (run / "config.yaml").read_text()


def test_printed_result_fits_and_says_how_to_go_on(trained: dict) -> None:
    lines = trained["stdout"].splitlines()[:-1]
    assert all(len(line) <= 80 for line in lines if "://" not in line and "company-faq" not in line and "  " in line)
    text = "\n".join(lines)
    assert "ownchat chat company-faq" in text and "\x1b" not in text
    assert "not used" in text or "nothing dropped" in text


@pytest.mark.slow
def test_same_again_does_nothing_and_other_settings_are_a_new_run(
    home: Path, faq: Path, tiny_model: Path, trained: dict
) -> None:
    common = ["train", faq, "--base", tiny_model, "--system", "Be brief.", *QUICK]
    assert "nothing to do: run company-faq" in ownchat(home, *common).stdout
    ownchat(home, *common, "--seed", 1)
    assert (home / "runs" / "company-faq-2" / "5-train" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_chat(home: Path, trained: dict) -> None:
    one = ownchat(home, "chat", "company-faq", "--prompt", "What about the roof?", "--max-tokens", 12).stdout
    again = ownchat(home, "chat", "company-faq", "--prompt", "-", "--max-tokens", 12, stdin="What about the roof?")
    assert one.strip() and one == again.stdout
    sampled = [
        ownchat(home, "chat", "company-faq", "--prompt", "Hi", "--temperature", 2, "--seed", seed, "--max-tokens", 12)
        for seed in (1, 1, 2)
    ]
    assert sampled[0].stdout == sampled[1].stdout != sampled[2].stdout
    both = ownchat(home, "chat", "company-faq", "--prompt", "Hi", "--compare", "--max-tokens", 5).stdout
    assert "base" in both and "tuned" in both


def test_evaluate_again(home: Path, trained: dict) -> None:
    done = ownchat(home, "evaluate", "company-faq", "--set", "evaluate.answers=2", "--json")
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report["answers"]) == 2
    assert report["held_out"]["tuned"]["loss"] == trained["report"]["held_out"]["tuned"]["loss"]


def test_runs_lists_and_deletes(home: Path, trained: dict, tmp_path: Path) -> None:
    listed = ownchat(home, "runs").stdout
    assert re.search(r"company-faq\s+finished\s+\d+ MB .* held-out loss [\d.]+ -> [\d.]+ \(-\d+%\)", listed)
    rows = json.loads(ownchat(home, "runs", "--json").stdout)
    assert rows[0]["num_bytes"] > 10_000
    ownchat(home, "import", tmp_path / "x.csv", code=2)
    (tmp_path / "x.csv").write_text("question,answer\na?,b\nc?,d\n")
    ownchat(home, "import", tmp_path / "x.csv", "--name", "gone")
    assert "gone removed" in ownchat(home, "runs", "--delete", "gone").stdout
    assert "there is no such run" in ownchat(home, "runs", "--delete", "gone", code=2).stderr


def test_preview_shows_trained_tokens(home: Path, faq: Path, tiny_model: Path) -> None:
    before = sorted(home.rglob("*"))
    shown = ownchat(home, "import", faq, "--preview", "--set", f"model.base={tiny_model}").stdout
    assert "question" in shown and "faq.csv" in shown
    assert "[[The valve 0 is fine, thank you for asking.<|im_end|>]]" in shown.replace("\n", "").replace("│", "")
    assert re.search(r"In these records \d+ of \d+ tokens are trained \(\d+%\)", shown)
    assert sorted(home.rglob("*")) == before, "a preview writes nothing"


def test_interrupt_saves_and_the_same_command_goes_on(home: Path, faq: Path, tiny_model: Path) -> None:
    command = ["train", faq, "--base", tiny_model, "--name", "stopped", *QUICK]
    command += ["--epochs", 400, "--set", "train.patience=9999", "--set", "train.validate_every=500"]
    going = subprocess.Popen(
        [sys.executable, "-m", "ownchat", *map(str, command)],
        stdout=-1, stderr=-1, text=True, env=os.environ | {"OWNCHAT_HOME": str(home)},
    )  # fmt: skip
    metrics = home / "runs" / "stopped" / "5-train" / "sft" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text().count("\n") > 3):
        assert going.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    busy = ownchat(home, *command, code=2).stderr
    assert "another process works on this run" in busy
    going.send_signal(signal.SIGINT)
    _, stderr = going.communicate(timeout=120)
    assert going.returncode == 130 and "the same command goes on" in stderr and "Traceback" not in stderr
    assert "interrupted, step" in ownchat(home, "runs").stdout or "training, step" in ownchat(home, "runs").stdout
    assert "its training is not finished" in ownchat(home, "chat", "stopped", "--prompt", "x", code=2).stderr
    other = ownchat(home, *command, "--seed", 5, code=2).stderr
    assert "unfinished training with other settings" in other and "--force" in other
    ownchat(home, "runs", "--delete", "stopped")


@pytest.mark.slow
def test_documents_train_too(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    essays = tmp_path / "essays"
    essays.mkdir()
    for n in range(3):
        text = "\n\n".join(
            f"Paragraph {k} of essay {n}. The pump makes a noise and the valve is open." for k in range(40)
        )
        (essays / f"essay-{n}.md").write_text(f"# Essay {n}\n\n{text}\n")
    done = ownchat(home, "train", essays, "--base", tiny_model, "--epochs", 1, *QUICK, "--json")
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["held_out"]["tuned"]["chrf"] is None and report["held_out"]["notes"]
    assert report["held_out"]["tuned"]["loss"]["value"] < report["held_out"]["base"]["loss"]["value"]
    tokens = report["ledger"]["4-tokens"]["token"]
    assert tokens["in"] == tokens["kept"]


def test_doctor(home: Path) -> None:
    text = ownchat(home, "doctor").stdout
    for what in ("processor", "bfloat16", "memory", "disk", "GPU", "torch", "starter"):
        assert what in text


GOOD = "question,answer\n" + "".join(f"what is {n}?,it is {n}\n" for n in range(20))
MISTAKES: dict[str, tuple[dict[str, bytes | None], list[str], str]] = {
    "missing path": ({}, ["train", "absent"], "there is no such file or folder"),
    "empty folder": ({"in/": None}, ["train", "in"], "in"),
    "empty file": ({"in.csv": b""}, ["train", "in.csv"], "empty"),
    "binary": ({"in.csv": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"}, ["train", "in.csv"], "in.csv"),
    "bad json": ({"in.jsonl": b'{"messages": []}\n{"messages": [}\n'}, ["train", "in.jsonl"], "line 2"),
    "bottomless json": ({"in.json": b'{"messages":' + b"[" * 5000}, ["train", "in.json"], "in.json"),
    "bottomless row": ({"in.jsonl": b'{"messages":' + b"[" * 5000 + b"\n"}, ["train", "in.jsonl"], "in.jsonl"),
    "no answers": ({"in.csv": b"question,answer\nwhy?,\nhow?,\n"}, ["train", "in.csv"], "answer"),
    "no column": ({"in.csv": b"a,b\n1,2\n3,4\n5,6\n"}, ["train", "in.csv"], "--map question="),
    "map to nothing": ({"in.csv": GOOD.encode()}, ["train", "in.csv", "--map", "answer=anser"], "anser"),
    "map without =": ({"in.csv": GOOD.encode()}, ["train", "in.csv", "--map", "answer"], "--map question=COLUMN"),
    "wrong encoding": ({"in.txt": b"\xff\xfe\x00\xd8" * 9 + b"\x81"}, ["train", "in.txt"], "in.txt"),
    "all dropped": ({"in.csv": b"question,answer\n ,\n,\n"}, ["train", "in.csv"], "in.csv"),
    "too few": ({"in.csv": b"question,answer\na?,b\nc?,d\n"}, ["train", "in.csv"], "three"),
    "no assistant": (
        {"in.jsonl": b'{"messages": [{"role": "user", "content": "hi"}]}\n'}, ["train", "in.jsonl"], "assistant",
    ),
    "unknown role": (
        {"in.jsonl": b'{"messages": [{"role": "robot", "content": "hi"}]}\n'}, ["train", "in.jsonl"], "robot",
    ),
    "unknown key": ({"in.csv": GOOD.encode()}, ["train", "in.csv", "--set", "train.epoch=3"], "train.epochs"),
    "no weights": (
        {"in.csv": GOOD.encode(), "m/config.json": b"{}"}, ["train", "in.csv", "--base", "m"], "no weights",
    ),
    "pickled": (
        {"in.csv": GOOD.encode(), "m/config.json": b"{}", "m/pytorch_model.bin": b"x"},
        ["train", "in.csv", "--base", "m"], "pickled",
    ),
    "no run": ({}, ["chat", "nobody", "--prompt", "x"], "there is no such run"),
    "bad value": ({"in.csv": GOOD.encode()}, ["train", "in.csv", "--epochs", "-1"], "train.epochs"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_clear_message(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, arguments, message = MISTAKES[name]
    for path, content in files.items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            target.mkdir()
        else:
            target.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    done = ownchat(tmp_path / "home", *arguments, code=2)
    assert done.stderr.startswith("ownchat: ") or "\nownchat: " in done.stderr
    assert message in done.stderr, done.stderr


def test_vocabulary_that_does_not_fit(home: Path, faq: Path, tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoTokenizer

    shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_tokens([f"<extra-{n}>" for n in range(500)])
    tokenizer.save_pretrained(tmp_path / "model")
    done = ownchat(home, "train", faq, "--base", tmp_path / "model", "--name", "unfit", code=2)
    assert "do not belong together" in done.stderr


@pytest.mark.slow
def test_an_interrupted_evaluation_does_not_train_again(home: Path, faq: Path, tiny_model: Path, trained: dict) -> None:
    """The report is missing (a crash, Ctrl-C): the same command makes it, and only it."""
    run = home / "runs" / "company-faq"
    before = (run / "5-train" / "model" / "model.safetensors").stat().st_mtime_ns
    (run / "6-report" / "manifest.json").unlink()
    common = ["train", faq, "--base", tiny_model, "--system", "Be brief.", *QUICK]
    ownchat(home, *common)
    ownchat(home, *common, "--set", "evaluate.answers=1", "--set", "generate.temperature=0.5")
    assert (run / "5-train" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert (run / "6-report" / "manifest.json").is_file()


def test_piped_text_is_never_a_command(home: Path, trained: dict, tmp_path: Path) -> None:
    target = tmp_path / "written"
    ownchat(home, "chat", "company-faq", "--max-tokens", 3, stdin=f"Hi\n/save {target}\n/quit\nHello\n")
    assert not target.exists()


@pytest.mark.parametrize("name", [".", "..", ".hidden"])
def test_names_that_are_no_names(home: Path, faq: Path, name: str) -> None:
    assert "cannot be a run's name" in ownchat(home, "train", faq, "--name", name, code=2).stderr
    assert "cannot be a run's name" in ownchat(home, "runs", "--delete", name, code=2).stderr


@pytest.mark.slow
def test_control_characters_of_files_do_not_reach_the_terminal(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("question,answer\n" + "why\x1b]0;owned\x07?,be\x1b[31mcause it is\n" * 3)
    shown = ownchat(home, "import", tmp_path / "in.csv", "--preview", "--set", f"model.base={tiny_model}")
    assert "\x1b" not in shown.stdout + shown.stderr and "\x07" not in shown.stdout
    wrong = ownchat(home, "train", tmp_path / "in.csv", "--map", "answer=\x1b[31mx", code=2)
    assert "\x1b" not in wrong.stderr


@pytest.mark.slow
def test_whom_the_runs_hold_and_how_raw_text_goes(home: Path, trained: dict) -> None:
    shutil.copytree(home / "runs" / "company-faq", home / "runs" / "copy")
    places = json.loads(ownchat(home, "runs", "find", "THE  valve 0", "--json").stdout)
    assert {"run": "copy", "stage": "1-data", "records": 1} in places
    assert any(place["stage"].startswith("2-clean/") for place in places)
    assert "no run holds this text" in ownchat(home, "runs", "find", "Anna Berg").stdout
    assert "at least two characters" in ownchat(home, "runs", "find", "a", code=2).stderr

    assert "raw and dropped text removed" in ownchat(home, "runs", "purge-raw", "copy").stdout
    assert not list((home / "runs" / "copy" / "1-data").glob("*.parquet")) or [
        path.name for path in (home / "runs" / "copy" / "1-data").glob("*.parquet")
    ] == ["ledger.parquet"]
    left = {place["stage"] for place in json.loads(ownchat(home, "runs", "find", "The valve 0", "--json").stdout)
            if place["run"] == "copy"}  # fmt: skip
    assert not left & {"1-data", "2-clean/dropped"}
    assert ownchat(home, "evaluate", "copy", "--set", "evaluate.answers=0").stdout
    assert "no such run" in ownchat(home, "runs", "purge-raw", "nobody", code=2).stderr
    ownchat(home, "runs", "--delete", "copy")


def test_what_is_written_is_for_its_owner_alone(home: Path, trained: dict) -> None:
    run = home / "runs" / "company-faq"
    assert all(not path.lstat().st_mode & 0o077 for path in [run, *run.rglob("*")])


def test_memory_that_runs_out_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from ownchat.cli import _exit_codes

    with pytest.raises(SystemExit) as ended, _exit_codes():
        torch.empty(1 << 60, dtype=torch.uint8)
    assert ended.value.code == 2 and "memory ran out" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="shapes"), _exit_codes():
        raise RuntimeError("shapes do not match")
