"""Texts of tables and help desks that may be HTML, or plain text with a few tags and entities left in it."""

from __future__ import annotations

import html
import re

from ownchat.data.mail.html import html_text

# Tags that editors of shops and help desks write. Others may be what the text is about: "vector<int>", "<your name>".
_INLINE = r"span|b|i|u|em|strong|a|font|small|sub|sup|tt|s|strike|mark|abbr|o:p"
_BLOCK = r"p|div|ul|ol|li|h[1-6]|blockquote|table|tbody|tr|td|th|hr|img"
_TAG = re.compile(rf"</?(?:{_INLINE}|{_BLOCK}|br)(?:\s[^<>]{{0,2000}})?\s*/?>", re.IGNORECASE)
_BREAK = re.compile(r"[ \t]*<br\s*/?>[ \t]*(?:\r?\n)?|</(?:p|div|li|h[1-6]|tr)\s*>[ \t]*(?:\r?\n)?", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")


def without_markup(text: str) -> str:
    """A text without HTML: a page or a piece of one as it reads, a plain text without the tags that slipped into it.

    A text that quotes code keeps it.

    >>> without_markup("Great value.<br /><br />It&#39;s <b>warm</b> &amp; light, list<int> aside")
    "Great value.\\n\\nIt's warm & light, list<int> aside"
    """
    text = text.strip()
    if text.startswith("<") and text.endswith(">") and ((page := html_text(text)) or _TAG.match(text)):
        return page
    if "`" not in text:
        if "<" in text:
            text = _TAG.sub("", _BREAK.sub("\n", text))
        if "&" in text:
            text = _ENTITY.sub(lambda match: html.unescape(match[0]).replace("\xa0", " "), text)
    return text.replace("\r\n", "\n").strip()
