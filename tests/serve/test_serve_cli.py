"""``ownchat serve`` and ``ownchat keys`` as a person types them."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ownchat.cli import app
from ownchat.errors import ConfigError, UserError
from ownchat.serve.settings import Settings


def ownchat(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ownchat", *arguments],
        env={**os.environ, "OWNCHAT_HOME": str(home), "OWNCHAT_API_KEY": "", **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_keys_are_made_listed_and_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    monkeypatch.delenv("OWNCHAT_API_KEY", raising=False)

    def typed(*arguments: str) -> Result:
        done = CliRunner().invoke(app, ["keys", *arguments])
        assert done.exit_code == 0, done.exception
        return done

    made = typed("create", "anna", "--scope", "infer", "--scope", "train", "--days", "7")
    token = made.stdout.strip()
    assert token.startswith("sk-own-") and token not in made.stderr
    listed = typed("list", "--json")
    (key,) = json.loads(listed.stdout)
    assert key["owner"] == "anna" and key["scopes"] == ["infer", "train"] and key["state"] == "active"
    assert token not in listed.stdout and key["expires"] - key["created"] == pytest.approx(7 * 86400, abs=60)
    assert "anna" in typed("revoke", key["id"]).stdout
    assert "revoked" in typed("list").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "revoke", "key_nothing"],
        ["keys", "create", "anna", "--scope", "root"],
        ["keys", "create", "a b"],
        ["keys", "create", "anna", "--days", "0"],
        ["keys", "create", "anna", "--days", "inf"],
        ["keys", "create", "anna", "--days", "nan"],
        ["keys", "create", "anna", "--days", "1e15"],
        ["keys", "list", "--database", "postgres://nobody:geheim@127.0.0.1:1/x"],
        ["serve", "--slots", "0"],
        ["serve", "--port", "70000"],
        ["serve", "--cors", "*"],
        ["serve", "--upstream", "big"],
        ["serve", "--webhook", "ftp://a.example/geheim"],
        ["serve", "--upstream", "a/b=http://127.0.0.1:1/v1#x"],
        ["serve", "--host", "203.0.113.7"],
    ],
    ids=" ".join,
)
def test_a_persons_mistake_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    monkeypatch.delenv("OWNCHAT_API_KEY", raising=False)
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, UserError), "what the program makes a message and exit code 2 of"
    assert "What to do" in str(done.exception) and "geheim" not in str(done.exception)


def test_a_port_that_is_taken_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = ownchat(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2 and "--port" in done.stderr and "fetched" not in done.stdout


def test_a_weak_key_of_the_environment_is_said(serve_home: Path, tmp_path: Path) -> None:
    import shutil

    home = shutil.copytree(serve_home, tmp_path / "home")
    done = ownchat(home, "serve", "--port", "0", OWNCHAT_API_KEY="password")
    assert done.returncode == 2 and "OWNCHAT_API_KEY" in done.stderr and "password" not in done.stderr


@pytest.mark.parametrize("origin", ["*", "chat.example.org", "https://a.example/page", "https://*.example"])
def test_origins_are_whole(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigError):
        Settings(home=tmp_path, cors_origins=(origin,))


def test_the_pages_commands_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("ownchat ")]
    assert {tuple(command[:2]) for command in commands} >= {("keys", "create"), ("keys", "list"), ("keys", "revoke")}
    for command in commands:
        shown = CliRunner().invoke(app, [*command[: 2 if command[0] == "keys" else 1], "--help"]).stdout
        assert all(flag in shown for flag in command if flag.startswith("--")), command


def test_the_page_names_every_option_that_limits() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    for option in ("--slots", "--queue", "--queue-tokens", "--rpm", "--tpm", "--deadline", "--drain", "--threads"):
        assert f"`{option}`" in page
        assert option in CliRunner().invoke(app, ["serve", "--help"]).stdout
