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
from ownchat.data.chats.irc import read_irc, recognise_irc
from ownchat.data.chats.slack import read_slack, read_slack_export, recognise_slack
from ownchat.data.chats.subtitles import read_subtitles, recognise_subtitles
from ownchat.data.chats.telegram import read_telegram, recognise_telegram
from ownchat.data.chats.transcripts import read_transcript, recognise_screenplay, recognise_transcript
from ownchat.data.chats.whatsapp import read_whatsapp, recognise_whatsapp
from ownchat.data.datasets.annotated_reviews import (
    read_annotated,
    read_pros_cons,
    recognise_annotated,
    recognise_pros_cons,
)
from ownchat.data.datasets.chatterbot import read_chatterbot, recognise_chatterbot
from ownchat.data.datasets.columnar import read_columnar, recognise_columnar
from ownchat.data.datasets.dialogues import read_dialogues, recognise_dialogues
from ownchat.data.datasets.nested import (
    read_description,
    read_handbook,
    read_pairs,
    read_texts,
    recognise_description,
    recognise_handbook,
    recognise_pairs,
    recognise_texts,
)
from ownchat.data.datasets.rasa import read_rasa, read_rasa_bot, recognise_rasa
from ownchat.data.documents.epub import read_epub, recognise_epub
from ownchat.data.documents.html import read_html, recognise_html
from ownchat.data.documents.office import read_docx, read_pptx, recognise_docx, recognise_pptx
from ownchat.data.documents.opendocument import read_opendocument, recognise_opendocument
from ownchat.data.documents.pdf import read_pdf, recognise_pdf
from ownchat.data.documents.sheets import read_sheets, recognise_sheets
from ownchat.data.documents.text import read_markdown, read_text, recognise_markdown, recognise_text
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.given import columns_only
from ownchat.data.json_rows import read_json, read_json_lines, recognise_json, recognise_json_lines
from ownchat.data.mail.correspondence import read_mail, read_one
from ownchat.data.mail.mailbox import recognise_mail
from ownchat.data.reading import Reading
from ownchat.data.tables import read_table, recognise_table
from ownchat.data.tickets.intercom import read_intercom, recognise_intercom
from ownchat.data.tickets.table import read_message_table, recognise_message_table
from ownchat.data.tickets.zendesk import read_zendesk, recognise_zendesk
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


# Of two that are equally sure the first one wins.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("jsonl", recognise_json_lines, read_json_lines),
        Format("json", recognise_json, read_json),
        Format("csv", recognise_table, read_table),
        Format("text", recognise_text, read_text),
        Format("markdown", recognise_markdown, read_markdown),
        Format("html", recognise_html, read_html),
        Format("pdf", recognise_pdf, read_pdf),
        Format("docx", recognise_docx, read_docx),
        Format("pptx", recognise_pptx, read_pptx),
        Format("xlsx", recognise_sheets, read_sheets),
        Format("odt", recognise_opendocument, read_opendocument),
        Format("epub", recognise_epub, read_epub),
        Format("columnar", recognise_columnar, read_columnar),
        Format("dialogues", recognise_dialogues, read_dialogues),
        Format("labelled pairs", recognise_pairs, read_pairs),
        Format("handbook", recognise_handbook, read_handbook),
        Format("texts", recognise_texts, read_texts),
        Format("description", recognise_description, read_description),
        Format("annotated reviews", recognise_annotated, read_annotated),
        Format("pros and cons", recognise_pros_cons, read_pros_cons),
        Format("chatterbot", recognise_chatterbot, read_chatterbot),
        Format("rasa", recognise_rasa, read_rasa, together=read_rasa_bot),
        Format("chatgpt", recognise_chatgpt, read_chatgpt),
        Format("claude", recognise_claude, read_claude),
        Format("discord", recognise_discord, read_discord),
        Format("slack", recognise_slack, read_slack, together=read_slack_export),
        Format("telegram", recognise_telegram, read_telegram),
        Format("whatsapp", recognise_whatsapp, read_whatsapp),
        Format("mail", recognise_mail, read_one, together=read_mail),
        Format("zendesk", recognise_zendesk, read_zendesk),
        Format("intercom", recognise_intercom, read_intercom),
        Format("message table", recognise_message_table, read_message_table),
        Format("irc", recognise_irc, read_irc),
        Format("transcript", recognise_transcript, read_transcript),
        Format("screenplay", recognise_screenplay, read_transcript),
        Format("subtitles", recognise_subtitles, read_subtitles),
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
    return detect(file, data.format)[0].read(file, columns_only(data))
