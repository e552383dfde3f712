"""Which reader a file gets: found from its content, its name only helps, and the user can say otherwise.

To add a file format: one reader function, one function that recognises it, and one line in :data:`FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from ownchat.config import DataConfig
from ownchat.data.chats.chatgpt import read_chatgpt, recognise_chatgpt
from ownchat.data.chats.claude import read_claude, recognise_claude
from ownchat.data.chats.discord import read_discord, recognise_discord
from ownchat.data.chats.slack import read_slack, read_slack_export, recognise_slack
from ownchat.data.chats.telegram import read_telegram, recognise_telegram
from ownchat.data.chats.whatsapp import read_whatsapp, recognise_whatsapp
from ownchat.data.documents.text import read_text
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.json_rows import read_json, read_json_lines, recognise_json, recognise_json_lines
from ownchat.data.reading import Reading
from ownchat.data.tables import read_table, recognise_table
from ownchat.errors import ConfigError, nearest


@dataclass(frozen=True)
class Format:
    """A kind of file. ``recognise`` gives a confidence from 0 (not this) to 1, from magic, sample and outline alone.

    ``together``: files of this format are read as one (the mails of a mailbox, the days of a Slack export).
    """

    name: str
    recognise: Callable[[InputFile], float]
    read: Callable[[InputFile, DataConfig], Reading]
    together: Callable[[Sequence[InputFile], DataConfig], Reading] | None = None


def _recognise_text(file: InputFile) -> float:
    return 0.0 if file.magic else 0.3 if file.suffix in (".txt", ".md", ".markdown") else 0.1


# Of two that are equally sure the first one wins.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("jsonl", recognise_json_lines, read_json_lines),
        Format("json", recognise_json, read_json),
        Format("csv", recognise_table, read_table),
        Format("text", _recognise_text, read_text),
        Format("chatgpt", recognise_chatgpt, read_chatgpt),
        Format("claude", recognise_claude, read_claude),
        Format("discord", recognise_discord, read_discord),
        Format("slack", recognise_slack, read_slack, together=read_slack_export),
        Format("telegram", recognise_telegram, read_telegram),
        Format("whatsapp", recognise_whatsapp, read_whatsapp),
    )
}


def detect(file: InputFile, given: dict[str, str] | None = None) -> tuple[Format, float]:
    """The format of a file and how sure that is, from 0 to 1.

    ``given``: patterns of names with a format, as the user said. Raises
    :class:`~ownchat.data.files.UnreadableFile` where no format fits (binary ones that a reader is missing for).
    """
    for pattern, name in (given or {}).items():
        if fnmatch(file.name, pattern) or fnmatch(file.name.rpartition("/")[2], pattern):
            return FORMATS[name], 1.0
    best, confidence = None, 0.0
    for format in FORMATS.values():
        sure = format.recognise(file)
        if sure > confidence:
            best, confidence = format, sure
    if best is None:
        what = f"a file of the kind {file.magic}" if file.magic else "this file"
        raise UnreadableFile(f"no reader knows {what}", where=file.name, fix="export it as text, CSV or JSON")
    return best, confidence


def check_formats(given: dict[str, str]) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` for a format that does not exist."""
    for name in given.values():
        if name not in FORMATS:
            fix = nearest(name, FORMATS) or f"formats are {', '.join(FORMATS)}"
            raise ConfigError(f'there is no format "{name}"', where="data.format", fix=fix)


def read(file: InputFile, data: DataConfig) -> Reading:
    """Understand a file; its rows stream. Raises :class:`~ownchat.errors.DataError`, see the readers."""
    return detect(file, data.format)[0].read(file, data)
