"""Keys: made once, kept as hashes, checked without a hint, ended by time and by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from ownchat.errors import ConfigError, UserError
from ownchat.serve import keys as module
from ownchat.serve.database import SCHEMA_VERSION, Database, connect
from ownchat.serve.keys import PREFIX, Keys
from ownchat.serve.settings import Settings


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.delenv("OWNCHAT_API_KEY", raising=False)
    opened = connect(Settings(home=tmp_path))
    yield opened
    opened.close()


def test_the_first_key_is_made_once_and_may_all(database: Database) -> None:
    keys = Keys(database)
    token = keys.first()
    assert token is not None and token.startswith(PREFIX) and len(token) >= len(PREFIX) + 43  # 256 bits
    assert keys.first() is None and Keys(database).first() is None
    caller = keys.check(token)
    assert caller is not None and all(caller.may(scope) for scope in module.SCOPES)


def test_a_revoked_first_key_brings_no_other(database: Database) -> None:
    keys = Keys(database)
    keys.first()
    keys.revoke(keys.list()[0].id)
    assert keys.first() is None


def test_no_secret_is_in_the_database(database: Database, tmp_path: Path) -> None:
    keys = Keys(database)
    _, token = keys.create("anna")
    database.close()
    stored = b"".join(path.read_bytes() for path in (tmp_path / "server").iterdir())
    assert b"anna" in stored
    assert token.removeprefix(PREFIX).encode() not in stored


def test_files_are_for_their_owner_alone(database: Database, tmp_path: Path) -> None:
    Keys(database).first()
    for path in [tmp_path / "server", *(tmp_path / "server").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_key_has_only_its_scopes(database: Database) -> None:
    keys = Keys(database)
    _, token = keys.create("anna", ("infer", "train"))
    caller = keys.check(token)
    assert caller is not None and caller.owner == "anna"
    assert [scope for scope in module.SCOPES if caller.may(scope)] == ["infer", "train"]


@pytest.mark.parametrize("token", ["", "sk-own-", "sk-own-" + "A" * 43, "x" * 50, "sk-own-\udcff", "sk-own-ключ"])
def test_what_is_no_key_is_nobodys(database: Database, token: str) -> None:
    keys = Keys(database)
    keys.create("anna")
    assert keys.check(token) is None


def test_a_part_of_a_key_is_nobodys(database: Database) -> None:
    keys = Keys(database)
    _, token = keys.create("anna")
    assert keys.check(token) is not None
    assert keys.check(token[:-1]) is None and keys.check(token + "A") is None and keys.check(token.upper()) is None


def test_the_whole_hash_decides(database: Database) -> None:
    """Two rows with one beginning: the second is found by its whole hash, and a third that shares it is not."""
    keys = Keys(database)
    _, token = keys.create("anna")
    digest = module._digest(token)
    with database.begin() as connection:
        row = {"id": "key_other", "lookup": digest[:16], "hash": digest[:63] + "x", "owner": "eve", "scopes": "admin"}
        connection.execute(insert(module._keys).values(**row, created=0.0))
    caller = keys.check(token)
    assert caller is not None and caller.owner == "anna" and not caller.may("admin")


def test_expired_and_revoked_keys_end(database: Database) -> None:
    keys = Keys(database)
    _, old = keys.create("anna", expires=time.time() - 1)
    assert keys.check(old) is None
    key, token = keys.create("anna", expires=time.time() + 1000)
    assert keys.check(token) is not None and keys.check(token) is not None
    keys.revoke(key.id)
    assert keys.check(token) is None
    assert [one.state(time.time()) for one in keys.list()] == ["expired", "revoked"]


def test_a_key_revoked_elsewhere_ends_soon(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = Keys(database), Keys(database)
    key, token = mine.create("anna")
    assert mine.check(token) is not None
    other.revoke(key.id)
    monkeypatch.setattr(module, "REMEMBERED_SECONDS", 0.0)
    assert mine.check(token) is None


@pytest.mark.parametrize(
    ("owner", "scopes"), [("", ("infer",)), ("a\nb", ("infer",)), ("anna", ("root",)), ("anna", ())]
)
def test_a_key_that_cannot_be_is_refused(database: Database, owner: str, scopes: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        Keys(database).create(owner, scopes)
    assert Keys(database).list() == []


def test_the_key_of_the_environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_API_KEY", "a-long-key-that-is-given-from-outside")
    keys = Keys(database)
    assert keys.first() is None, "no other key is made"
    caller = keys.check("a-long-key-that-is-given-from-outside")
    assert caller is not None and caller.may("admin")
    assert keys.check("a-long-key-that-is-given-from-outsidf") is None
    assert keys.list() == [], "it is not stored"


@pytest.mark.parametrize("weak", ["password", "x" * 19, "with space in the middle of it", "ключ" * 10, "x" * 300])
def test_a_weak_key_of_the_environment_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch, weak: str
) -> None:
    monkeypatch.setenv("OWNCHAT_API_KEY", weak)
    with pytest.raises(UserError, match="OWNCHAT_API_KEY") as refused:
        Keys(database)
    assert weak not in str(refused.value)


# ------------------------------------------------------------------------------------------------- the database


@pytest.mark.parametrize(
    "url", ["mysql://a:secret@h/db", "sqlite://", "sqlite:///:memory:", "no url", "file:///etc/passwd", "oracle://x"]
)
def test_other_databases_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://") as refused:
        connect(Settings(home=tmp_path, database=url))
    assert "secret" not in str(refused.value)


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    opened = connect(Settings(home=tmp_path))
    with opened.begin() as connection:
        connection.execute(text(f"UPDATE ownchat_schema SET version = {SCHEMA_VERSION + 1}"))
    opened.close()
    with pytest.raises(UserError, match="newer ownchat"):
        connect(Settings(home=tmp_path))


def test_a_damaged_database_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "server.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match="cannot be used"):
        connect(Settings(home=tmp_path))


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def half() -> None:
        with database.begin() as connection:
            connection.execute(text("UPDATE ownchat_schema SET version = 7"))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        half()
    with database.read() as connection:
        assert connection.execute(text("SELECT version FROM ownchat_schema")).scalar_one() == SCHEMA_VERSION


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.begin() as writer:
        writer.execute(text("UPDATE ownchat_schema SET version = 7"))
        with database.read() as reader:  # would fail with "database is locked" after its patience
            assert reader.execute(text("SELECT version FROM ownchat_schema")).scalar_one() == SCHEMA_VERSION
        writer.execute(text(f"UPDATE ownchat_schema SET version = {SCHEMA_VERSION}"))
