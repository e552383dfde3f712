"""Files and uploads, by the official SDK and by hand: what comes is kept, is its owner's, and fits."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from ownchat.serve.errors import ApiError

LINE = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
CONTENT = b"".join(json.dumps(LINE).encode() + b"\n" for _ in range(12))
BOUNDARY = "a-boundary"


def client(gateway: Any, *scopes: str, owner: str = "anna") -> openai.OpenAI:
    token = gateway.key(*(scopes or ("train",)), owner=owner)
    return openai.OpenAI(base_url=gateway.url, api_key=token, max_retries=0)


@pytest.fixture
def anna(gateway: Any) -> Iterator[openai.OpenAI]:
    """A client whose files are gone afterwards."""
    with client(gateway) as found:
        yield found
        for file in found.files.list():
            found.files.delete(file.id)


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def send(
    gateway: Any, *parts: bytes, path: str = "/v1/files", end: bytes = f"--{BOUNDARY}--\r\n".encode(), **more: Any
) -> Any:
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return gateway.call("POST", path, b"".join(parts) + end, headers=headers, **more)


def left(gateway: Any) -> list[Path]:
    """Bytes on the disk that belong to no upload and no file."""
    return list((gateway.services.settings.home / "server").rglob(".incoming-*"))


def test_a_file_lives_and_is_deleted(gateway: Any, anna: openai.OpenAI) -> None:
    made = anna.files.create(file=("faq.jsonl", CONTENT), purpose="fine-tune")
    assert (made.object, made.bytes, made.filename, made.purpose, made.status) == (
        "file", len(CONTENT), "faq.jsonl", "fine-tune", "processed",
    )  # fmt: skip
    assert anna.files.wait_for_processing(made.id, max_wait_seconds=1) == made == anna.files.retrieve(made.id)
    assert anna.files.content(made.id).read() == CONTENT
    stored = gateway.services.settings.home / "server" / "files" / made.id
    assert stored.stat().st_mode & 0o777 == 0o600
    assert anna.files.delete(made.id).deleted
    assert not stored.exists()
    for ask in (anna.files.retrieve, anna.files.delete, anna.files.content):
        with pytest.raises(openai.NotFoundError) as error:
            ask(made.id)
        assert error.value.code == "file_not_found"


def test_files_are_listed_in_pages(anna: openai.OpenAI) -> None:
    made = [anna.files.create(file=(f"{n}.jsonl", CONTENT), purpose="fine-tune").id for n in range(5)]
    other = anna.files.create(file=("a.txt", b"text"), purpose="user_data").id
    page = anna.files.list(purpose="fine-tune", limit=2, order="asc")
    assert [file.id for file in page.data] == made[:2] and page.has_more
    assert [file.id for file in page] == made, "the SDK follows the pages"
    assert [file.id for file in anna.files.list()] == [other, *made[::-1]], "newest first"
    assert [file.id for file in anna.files.list(purpose="user_data")] == [other]
    with pytest.raises(openai.BadRequestError, match="after"):
        anna.files.list(after="file-nothing")


def test_nobody_sees_the_file_of_another_owner(gateway: Any, anna: openai.OpenAI) -> None:
    mine = anna.files.create(file=("faq.jsonl", CONTENT), purpose="fine-tune").id
    with client(gateway, owner="bert") as bert, client(gateway, "admin", owner="root") as root:
        for other in (bert, root):
            for ask in (other.files.retrieve, other.files.delete, other.files.content):
                with pytest.raises(openai.NotFoundError):
                    ask(mine)
            assert mine not in [file.id for file in other.files.list()]
            with pytest.raises(openai.BadRequestError):
                other.files.list(after=mine)
    assert anna.files.retrieve(mine).id == mine
    with client(gateway, "infer") as reader, pytest.raises(openai.PermissionDeniedError):
        reader.files.list()


def test_parts_may_come_in_any_order(gateway: Any) -> None:
    file, purpose = part("file", CONTENT, "a.jsonl"), part("purpose", b"fine-tune")
    for parts in ((file, purpose), (purpose, file)):
        answer = send(gateway, *parts)
        assert (answer.status, answer.json()["bytes"]) == (200, len(CONTENT))


@pytest.mark.parametrize(
    ("parts", "end", "reason"),
    [
        ([part("file", CONTENT, "a.jsonl")], None, "you must give the parameter 'purpose'"),
        ([part("purpose", b"fine-tune")], None, "you must give the parameter 'file'"),
        ([part("purpose", b"fine-tune"), part("file", b"", "a.jsonl")], None, "'file' is empty"),
        ([part("purpose", b"fine-tune"), part("file", CONTENT)], None, None),
        ([part("purpose", b"everything"), part("file", CONTENT, "a")], None, "is not one of"),
        ([part("purpose", b"fine-tune-results"), part("file", CONTENT, "a")], None, "is not one of"),
        ([part("purpose", b"x" * 10_000), part("file", CONTENT, "a")], None, "a field is too long"),
        ([part("purpose", b"vision"), part("purpose", b"batch")], None, "there are two fields 'purpose'"),
        ([part("file", CONTENT, "a"), part("file", CONTENT, "b")], None, "there are two parts 'file'"),
        ([part(f"field{n}", b"x") for n in range(30)], None, "too many fields"),
        ([part("purpose", b"vision"), part("file", b"x", "a"), part("colour", b"red")], None, "supplied: colour"),
        ([part("purpose", b"vision"), part("file", b"x", "a"), part("expires_after", b"{}")], None, "anchor"),
        ([part("purpose", b"vision"), part("file", CONTENT, "a")], b"", "it ends too early"),
        ([b"this is no form"], b"", "the form cannot be read"),
        ([part("purpose", b"fine-tune"), part("file", b"question,answer", "a.csv")], None, "Line 1 is not a dict"),
        ([part("purpose", b"fine-tune"), part("file", CONTENT + b"{", "a")], None, "Line 13 is not a dictionary"),
        ([part("purpose", b"vision"), part("file", b"x", "a"), part("expires_after[seconds]", b"7200")],
         None, "anchor"),
        ([part("purpose", b"vision"), part("file", b"x", "a"), part("expires_after[anchor]", b"created_at"),
          part("expires_after[seconds]", b"60")], None, "is from 3600 to 2592000"),
    ],
)  # fmt: skip
def test_a_form_is_refused_with_its_reason(
    gateway: Any, parts: list[bytes], end: bytes | None, reason: str | None
) -> None:
    answer = send(gateway, *parts, **({} if end is None else {"end": end}))
    if reason is None:  # a file without a name is a file
        assert answer.status == 200
        return
    assert answer.status == 400
    assert reason in answer.error["message"]
    assert left(gateway) == []


def test_a_form_is_taken_where_files_are_and_nowhere_else(gateway: Any) -> None:
    form = (part("purpose", b"vision"), part("file", b"x", "a"))
    assert send(gateway, *form, path="/v1/chat/completions").status == 415
    assert gateway.call("POST", "/v1/files", {"purpose": "vision"}).status == 415
    assert send(gateway, *form, token=None).status == 401
    headers = {"content-type": "multipart/form-data"}
    assert gateway.call("POST", "/v1/files", b"x", headers=headers).status == 415, "without a boundary"


def test_names_lead_nowhere(gateway: Any) -> None:
    for name, shown in (("../../up.jsonl", "up.jsonl"), ("/etc/passwd", "passwd"), ("..", "file"), ("a\x07b", "ab")):
        answer = send(gateway, part("purpose", b"fine-tune"), part("file", CONTENT, name))
        assert answer.json()["filename"] == shown
    for id in ("..", "../server.db", "%2e%2e%2fserver.db", "file-x%00"):
        assert gateway.call("GET", f"/v1/files/{id}").status == 404
        assert gateway.call("GET", f"/v1/files/{id}/content").status == 404


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownchat.serve.files.FILE_BYTES", 100_000)
    form = (part("purpose", b"user_data"), part("file", b"x" * 150_000, "a"))
    assert send(gateway, *form).status == 413
    answer = send(gateway, part("purpose", b"user_data"), part("file", b"x" * 300_000, "a"))  # by its length alone
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert left(gateway) == []


def test_a_full_disk_is_no_reason_to_send_it_again(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownchat.serve.file_store.SPARE_BYTES", 1 << 60)
    answer = send(gateway, part("purpose", b"vision"), part("file", b"x", "a"))
    assert (answer.status, answer.headers["x-should-retry"]) == (507, "false")


def test_room_is_looked_for_before_the_bytes_come(
    gateway: Any, anna: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = begun(anna, 1_000_000)
    with monkeypatch.context() as patch:
        disk = SimpleNamespace(free=(1 << 30) + 50_000)
        patch.setattr("ownchat.serve.file_store.shutil.disk_usage", lambda _: disk)
        assert send(gateway, part("purpose", b"vision"), part("file", b"x", "a")).status == 200
        answer = send(gateway, part("purpose", b"vision"), part("file", b"x" * 60_000, "a"))
        assert (answer.status, answer.headers["x-should-retry"]) == (507, "false")
        with pytest.raises(openai.InternalServerError) as error:
            anna.uploads.parts.create(id, data=b"x" * 60_000)
        assert error.value.status_code == 507
    assert anna.uploads.parts.create(id, data=b"x" * 60_000).id


def test_a_disk_that_becomes_full_is_told_as_that(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ownchat.serve.forms.os.fsync", full)
    answer = send(gateway, part("purpose", b"vision"), part("file", b"x", "a"))
    assert (answer.status, answer.error["code"]) == (507, "insufficient_storage")
    assert left(gateway) == []


def test_files_expire(gateway: Any, anna: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    made = anna.files.create(
        file=("a.txt", b"text"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    files, later = gateway.app.state.files, time.time() + 3601
    monkeypatch.setattr("ownchat.serve.file_store.time.time", lambda: later)
    with pytest.raises(openai.NotFoundError):
        anna.files.retrieve(made.id)
    assert files.path(made.id).exists()
    assert files.sweep() >= 1
    assert not files.path(made.id).exists()


def test_bytes_without_a_row_are_swept_away_but_not_while_they_come(
    gateway: Any, anna: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = gateway.app.state.files
    kept = anna.files.create(file=("a.jsonl", CONTENT), purpose="fine-tune").id
    orphan = files.incoming()
    orphan.write_bytes(b"half")
    files.sweep()
    assert orphan.exists()
    later = time.time() + 7 * 3600
    monkeypatch.setattr("ownchat.serve.file_store.time.time", lambda: later)
    files.sweep()
    assert not orphan.exists()
    assert files.path(kept).exists()


# ----------------------------------------------------------------------------------------------------------- uploads


def test_the_sdk_uploads_in_chunks(anna: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_bytes(CONTENT)
    md5 = hashlib.md5(CONTENT).hexdigest()
    done = anna.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=100, md5=md5
    )
    assert done.status == "completed" and done.file is not None
    assert done.file.filename == "big.jsonl"
    assert anna.files.content(done.file.id).read() == CONTENT


def begun(anna: openai.OpenAI, size: int = len(CONTENT)) -> str:
    upload = anna.uploads.create(bytes=size, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    assert (upload.status, upload.expires_at) == ("pending", upload.created_at + 3600)
    return upload.id


def test_parts_count_in_the_order_of_the_list(gateway: Any, anna: openai.OpenAI) -> None:
    id = begun(anna)
    second = anna.uploads.parts.create(id, data=CONTENT[500:]).id
    anna.uploads.parts.create(id, data=b"sent and not wanted")
    first = anna.uploads.parts.create(id, data=CONTENT[:500]).id
    done = anna.uploads.complete(id, part_ids=[first, second])
    assert done.file is not None
    assert anna.files.content(done.file.id).read() == CONTENT
    again = anna.uploads.complete(id, part_ids=[first, second])
    assert again.file is not None and again.file.id == done.file.id, "sent again because the answer was lost"
    assert not (gateway.services.settings.home / "server" / "uploads" / id).exists()


def test_an_upload_that_does_not_fit_is_refused(anna: openai.OpenAI) -> None:
    id, other = begun(anna), begun(anna)
    whole = anna.uploads.parts.create(id, data=CONTENT).id
    foreign = anna.uploads.parts.create(other, data=CONTENT).id
    for ids, md5, reason in (
        ([foreign], None, "no such part"), ([whole, whole], None, "twice"), ([whole], "0" * 32, "md5"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError, match=reason):
            anna.uploads.complete(id, part_ids=ids, **({} if md5 is None else {"md5": md5}))
    short = anna.uploads.parts.create(id, data=b"short").id
    with pytest.raises(openai.BadRequestError, match="were announced"):
        anna.uploads.complete(id, part_ids=[short])
    with pytest.raises(openai.BadRequestError, match="larger than"):
        anna.uploads.parts.create(id, data=CONTENT * 2)
    assert anna.uploads.complete(id, part_ids=[whole]).status == "completed", "a mistake ends nothing"


def test_an_upload_to_learn_from_is_looked_at(anna: openai.OpenAI) -> None:
    id = begun(anna, 4)
    made = anna.uploads.parts.create(id, data=b"text").id
    with pytest.raises(openai.BadRequestError, match="Line 1 is not a dictionary"):
        anna.uploads.complete(id, part_ids=[made])


def test_an_upload_is_cancelled_or_expires(gateway: Any, anna: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled, late = begun(anna), begun(anna)
    for id in (cancelled, late):
        anna.uploads.parts.create(id, data=CONTENT)
    assert anna.uploads.cancel(cancelled).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="is cancelled"):
        anna.uploads.parts.create(cancelled, data=b"more")
    later = time.time() + 3601
    monkeypatch.setattr("ownchat.serve.upload_store.time.time", lambda: later)
    with pytest.raises(openai.BadRequestError, match="is expired"):
        anna.uploads.parts.create(late, data=b"more")
    gateway.app.state.uploads.sweep()
    folder = gateway.services.settings.home / "server" / "uploads"
    assert not (folder / late).exists() and not (folder / cancelled).exists()


def test_what_is_left_of_an_upload_that_is_over_is_swept_away(gateway: Any, anna: openai.OpenAI) -> None:
    over, goes_on = begun(anna), begun(anna)
    part_of = anna.uploads.parts.create(goes_on, data=CONTENT).id
    anna.uploads.cancel(over)
    folder = gateway.services.settings.home / "server" / "uploads"
    unknown = folder / f"upload_{'0' * 24}"
    for name in (folder / over, unknown):  # of a part that came at that moment, and of another database
        name.mkdir()
        (name / "part").write_bytes(CONTENT)
    gateway.app.state.uploads.sweep()
    assert not (folder / over).exists() and not unknown.exists()
    assert anna.uploads.complete(goes_on, part_ids=[part_of]).status == "completed"


def test_a_part_whose_upload_ends_under_it_is_refused(gateway: Any, anna: openai.OpenAI) -> None:
    id = begun(anna)
    uploads = gateway.app.state.uploads
    row = uploads.pending("anna", id)
    came = uploads.incoming(row, 1)
    came.write_bytes(b"x")
    anna.uploads.cancel(id)
    with pytest.raises(ApiError, match="is cancelled"):
        uploads.add_part("anna", row, came)


def test_nobody_adds_to_the_upload_of_another_owner(gateway: Any, anna: openai.OpenAI) -> None:
    id = begun(anna)
    mine = anna.uploads.parts.create(id, data=CONTENT).id
    asked: list[Callable[[openai.OpenAI], Any]] = [
        lambda bert: bert.uploads.parts.create(id, data=b"x"),
        lambda bert: bert.uploads.complete(id, part_ids=[mine]),
        lambda bert: bert.uploads.cancel(id),
    ]
    with client(gateway, owner="bert") as bert:
        for ask in asked:
            with pytest.raises(openai.NotFoundError):
                ask(bert)
