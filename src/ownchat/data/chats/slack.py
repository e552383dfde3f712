"""Slack's workspace export: ``users.json``, ``channels.json``, ... and a folder of days for each channel.

The form is described at https://slack.com/help/articles/220556107: ``CHANNEL/2023-01-02.json`` is a list of messages
whose ``text`` is written in mrkdwn (https://docs.slack.dev/messaging/formatting-message-text).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.chats.exports import (
    dicts,
    first_objects,
    have_keys,
    left_out,
    objects,
    read_talks,
    seconds,
    text_of,
)
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, unreadable
from ownchat.data.records import Record
from ownchat.data.talk import Talk, Turn, not_a_turn

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.json(?:\.gz)?\Z")
_CHANNELS = {"channels.json": "channel", "groups.json": "channel", "mpims.json": "few", "dms.json": "few"}
_BESIDE = {"integration_logs.json", "canvases.json", "lists.json", "file_conversations.json", "huddle_transcripts.json",
           "canvas_in_the_conversation.json", "emoji.json", "org_users.json"}  # fmt: skip
_SAID = {"", "thread_broadcast", "reply_broadcast", "me_message", "bot_message", "file_share", "file_comment",
         "slackbot_response"}  # fmt: skip
_DELETED = ("tombstone", "message_deleted")
_MARK = re.compile(r"<([@#!][^<>\n]+|[a-z][a-z0-9+.-]*:[^<>\n]+)>")


@dataclass
class _Workspace:
    """The files of one export and what its lists say."""

    days: dict[str, list[InputFile]] = field(default_factory=dict)  # channel: its days
    names: dict[str, str] = field(default_factory=dict)  # ids of users and channels
    bots: set[str] = field(default_factory=set)
    direct: set[str] = field(default_factory=set)  # messages between few


def recognise_slack(file: InputFile) -> float:
    """Sure of messages with ``type`` and ``ts``, of users and of channels; empty days are known by their names."""
    if file.magic or not isinstance(file.outline, list):
        return 0.0
    found, name = first_objects(file.outline), file.name.rpartition("/")[2].lower()
    if have_keys(found, "type", "ts") and found[0].get("type") == "message":
        return 0.96
    if name == "users.json" and have_keys(found, "id", "profile", "deleted"):
        return 0.97
    if name in _CHANNELS and have_keys(found, "id", "members"):
        return 0.97
    if name in _BESIDE and (have_keys(found, "id") or have_keys(found, "service_type") or not file.outline):
        return 0.6
    return 0.6 if not file.outline and (_DAY.search(name) or name in _CHANNELS) else 0.0


def read_slack(file: InputFile, data: DataConfig) -> Reading:
    """A day of a channel by itself; people have only their ids if the day does not name them."""
    return read_slack_export([file], data)


def read_slack_export(files: Sequence[InputFile], data: DataConfig) -> Reading:
    """All files of one or several exports. Channels are crowds, direct messages talks of few.

    Raises :class:`~ownchat.data.files.UnreadableFile` if no file of them is a day of a channel.
    """
    workspaces: dict[str, _Workspace] = {}
    beside: list[InputFile] = []
    others: list[InputFile] = []  # somebody said that they are of Slack
    for file in sorted(files, key=lambda file: file.name):
        folder, _, name = file.name.rpartition("/")
        if name.lower() in _BESIDE:
            beside.append(file)
        elif name.lower() == "users.json" or name.lower() in _CHANNELS:
            _take_list(workspaces.setdefault(folder, _Workspace()), file, name.lower())
        else:
            root, _, channel = folder.rpartition("/")
            if not _DAY.search(name) and not recognise_slack(file):  # there may be thousands of days
                others.append(file)
                continue
            workspaces.setdefault(root, _Workspace()).days.setdefault(channel, []).append(file)
    talks = [talk for root, workspace in workspaces.items() for talk in talks_of(root, workspace)]
    if not talks:
        what = "these are lists of a Slack export, without the days of its channels"
        raise UnreadableFile(what, where=files[0].name, fix="give the whole export: the zip file, or its folder")
    reading = read_talks(talks, data)

    def items() -> Iterator[Record | Entry]:
        yield from reading.rows
        for file in beside:
            yield dropped(file.name, 1, "beside the messages")
        for file in others:
            yield unreadable(file.name, 1, "not a file of a Slack export")

    return Reading("slack", reading.understood, items(), notes=reading.notes, entered=reading.entered)


def talks_of(root: str, workspace: _Workspace) -> list[Talk]:
    """A talk of the channels and one of the direct messages; what is not there is left out."""
    direct = [channel for channel in sorted(workspace.days) if _is_direct(channel, workspace)]
    channels = [channel for channel in sorted(workspace.days) if channel not in set(direct)]
    talks = []
    if channels:
        understood = f"Slack, {len(channels)} channel{'s' * (len(channels) > 1)}"
        talks.append(_talk(root, workspace, channels, understood, crowd=True))
    if direct:
        understood = f"Slack, {len(direct)} direct chat{'s' * (len(direct) > 1)}"
        talks.append(_talk(root, workspace, direct, understood, crowd=False))
    return talks


def _take_list(workspace: _Workspace, file: InputFile, name: str) -> None:
    for row in objects(file):
        if isinstance(row, Entry):
            continue  # a list only names what the days hold
        id = text_of(row.value.get("id"))
        if name == "users.json":
            workspace.names[id] = _user_name(row.value)
            if row.value.get("is_bot") is True:
                workspace.bots.add(id)
            continue
        channel = text_of(row.value.get("name")) or id
        workspace.names[id] = channel
        if _CHANNELS[name] == "few":
            workspace.direct.update((id, channel))


def _user_name(user: dict[str, Any]) -> str:
    profile = user.get("profile") if isinstance(user.get("profile"), dict) else {}
    assert isinstance(profile, dict)
    found = (text_of(profile.get("display_name")), text_of(profile.get("real_name")), text_of(user.get("real_name")),
             text_of(user.get("name")), text_of(user.get("id")))  # fmt: skip
    return next((name for name in found if name.strip()), "")


def _is_direct(channel: str, workspace: _Workspace) -> bool:
    return channel in workspace.direct or bool(re.fullmatch(r"D[A-Z0-9]{8,}|mpdm-.*", channel))


def _talk(root: str, workspace: _Workspace, channels: list[str], understood: str, *, crowd: bool) -> Talk:
    def turns() -> Iterator[Turn | Entry]:
        for channel in channels:
            for file in workspace.days[channel]:
                changed: Counter[str] = Counter()
                for row in objects(file):
                    if isinstance(row, Entry):
                        yield row
                    else:
                        yield _turn(row.value, row.line, file.name, channel or "channel", workspace, crowd, changed)
                yield from left_out(file, changed)

    return Talk("slack", root or workspace.days[channels[0]][0].name, turns, understood, crowd=crowd)


def _turn(value: dict[str, Any], line: int, file: str, channel: str, workspace: _Workspace, crowd: bool,
          changed: Counter[str]) -> Turn | Entry:  # fmt: skip
    subtype = text_of(value.get("subtype"))
    if subtype in _DELETED:
        return not_a_turn(file, line, "deleted message")
    if subtype not in _SAID or value.get("type", "message") != "message":
        return not_a_turn(file, line, "system line", subtype)
    files = bool(value.get("files") or value.get("file"))
    text = text_of(value.get("text"))
    if not text.strip():
        text = "\n".join(_pieces(value.get("attachments")) or _pieces(value.get("blocks")))
    if not text.strip():
        return not_a_turn(file, line, "media" if files else "empty")
    speaker, name = _who(value, workspace)
    if not speaker:
        return not_a_turn(file, line, "no speaker")
    changed.update(["file left out of a message"] if files else [])
    ts, thread = text_of(value.get("ts")), text_of(value.get("thread_ts"))
    return Turn(
        speaker, plain_text(text, workspace.names), line, seconds(value.get("ts")), name=name, thread=channel, id=ts,
        reply_to=thread if thread != ts else "", answer=not crowd and speaker in workspace.bots, file=file,
        within=thread,
    )  # fmt: skip


def _who(value: dict[str, Any], workspace: _Workspace) -> tuple[str, str]:
    user, bot = text_of(value.get("user")), text_of(value.get("bot_id"))
    speaker = user or bot or text_of(value.get("username"))
    profiles = [value[key] for key in ("user_profile", "bot_profile") if isinstance(value.get(key), dict)]
    named = [_user_name({"profile": profile, "name": profile.get("name")}) for profile in profiles]
    name = workspace.names.get(user) or text_of(value.get("username")) or next(filter(None, named), "")
    return speaker, name


def _pieces(blocks: Any) -> list[str]:
    """The texts inside attachments or blocks of a message that has none of its own."""
    found: list[str] = []
    for block in dicts(blocks):
        own = block.get("text")
        said = [text_of(block.get(key)) for key in ("pretext", "title")] + [
            text_of(own.get("text")) if isinstance(own, dict) else text_of(own)
        ]
        said = [text for text in said if text.strip()]
        inner = [] if said else _pieces(block.get("elements")) or _pieces(block.get("fields"))
        found += said or ([" ".join(inner)] if inner else []) or [text_of(block.get("fallback"))]
    return [text for text in found if text.strip()]


def plain_text(text: str, names: dict[str, str]) -> str:
    """Slack's mrkdwn with names in place of ids, links in the open, and characters unescaped.

    >>> plain_text("<@U1> see <https://example.org|the page> in <#C1|general> &amp; reply", {"U1": "Ada"})
    '@Ada see the page (https://example.org) in #general & reply'
    """
    if "<" in text:
        text = _MARK.sub(lambda mark: _shown(mark[1], names), text)
    if "&" in text:
        text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return text


def _shown(mark: str, names: dict[str, str]) -> str:
    target, _, label = mark.partition("|")
    if target[0] in "@#":
        return target[0] + (label or names.get(target[1:]) or target[1:]).lstrip(target[0])
    if target[0] == "!":  # <!here>, <!subteam^S1|@team>, <!date^1392734382^{date}|18 February>
        return label or "@" + target[1:].partition("^")[0]
    shown = target.removeprefix("mailto:").removeprefix("tel:")
    bare = target.removeprefix("https://").removeprefix("http://").rstrip("/")
    return shown if not label or label.rstrip("/") in (target, shown, bare) else f"{label} ({shown})"
