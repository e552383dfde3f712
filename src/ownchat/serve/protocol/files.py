"""What clients send about files and uploads, and the objects that they get. Fields and limits are OpenAI's."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError

from ownchat.serve.errors import ApiError
from ownchat.serve.protocol.body import STRICT

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
FILE_BYTES = 512 * 1024 * 1024
PART_BYTES = 64 * 1024 * 1024
UPLOAD_BYTES = 8 * 1024 * 1024 * 1024
UPLOAD_SECONDS = 3600
LEAST_SECONDS, MOST_SECONDS = 3600, 2_592_000  # until a file expires
LONGEST_NAME = 255
MOST_PARTS = 10_000


class ExpiresAfter(BaseModel):
    """When a file is to be deleted by itself."""

    model_config = STRICT

    anchor: Literal["created_at"]
    seconds: int = Field(ge=LEAST_SECONDS, le=MOST_SECONDS)


class UploadRequest(BaseModel):
    """``POST /v1/uploads``."""

    model_config = STRICT

    bytes: int = Field(ge=1, le=UPLOAD_BYTES)
    filename: str = Field(min_length=1, max_length=LONGEST_NAME)
    mime_type: str = Field(max_length=255)
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class CompleteRequest(BaseModel):
    """``POST /v1/uploads/{id}/complete``; the parts in the order of the file."""

    model_config = STRICT

    part_ids: list[str] = Field(min_length=1, max_length=MOST_PARTS)
    md5: str | None = Field(None, max_length=64)


def expiry_of(fields: dict[str, str]) -> int | None:
    """Seconds until a file expires, from the fields of a form; raises 400 for what is no such time."""
    if (whole := fields.get("expires_after")) is not None:  # as one part of JSON; the SDK sends a field for each
        try:
            return ExpiresAfter.model_validate_json(whole).seconds
        except ValidationError as error:
            raise ApiError(
                400,
                f"'expires_after' has the anchor created_at and seconds from {LEAST_SECONDS} to {MOST_SECONDS}",
                param="expires_after",
                code="invalid_value",
            ) from error
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise ApiError(400, "'expires_after[anchor]' is created_at", param="expires_after", code="invalid_value")
    number = int(seconds) if seconds and seconds.isascii() and seconds.isdigit() and len(seconds) < 12 else -1
    if not LEAST_SECONDS <= number <= MOST_SECONDS:
        raise ApiError(
            400, f"'expires_after[seconds]' is from {LEAST_SECONDS} to {MOST_SECONDS}", param="expires_after",
            code="invalid_value",
        )  # fmt: skip
    return number


def shown_name(given: str) -> str:
    """A file's name as it is listed: without folders and control characters. It never becomes a path.

    >>> shown_name("../../etc/pass\\nwd"), shown_name("C:\\\\data\\\\faq.jsonl"), shown_name("")
    ('passwd', 'faq.jsonl', 'file')
    """
    base = given.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character for character in base if character.isprintable())
    return kept[:LONGEST_NAME] if kept.strip(". ") else "file"


def file_object(row: Any) -> dict[str, Any]:
    """OpenAI's ``File``. Its status is final at once: the SDK's ``wait_for_processing`` polls for that."""
    found = {
        "id": row.id, "object": "file", "bytes": row.bytes, "created_at": row.created, "filename": row.filename,
        "purpose": row.purpose, "status": "processed",
    }  # fmt: skip
    return found if row.expires is None else found | {"expires_at": row.expires}
