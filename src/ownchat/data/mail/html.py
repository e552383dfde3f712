"""HTML mail as the plain text that a person reads; what quotes another mail gets ">" before its lines.

So that one place decides about quotes: :mod:`ownchat.data.mail.body`.
"""

from __future__ import annotations

import re
from typing import Any

MOST_HTML = 4_000_000  # characters: longer ones are generated reports

_QUOTES = 'blockquote, div.gmail_quote, div.yahoo_quoted, div.moz-forward-container, div[id^="isForwardContent"]'
_BORDERS = (
    'div#divRplyFwdMsg, div#appendonsend, div[style*="border-top:solid"], hr#stopSpelling, div.OutlookMessageHeader'
)
_HIDDEN = re.compile(r"<(style|script|head|title)\b.*?</\1\s*>|<!--.*?-->", re.S | re.I)
_TAG = re.compile(r"<[^>]{1,2000}>")
_BREAK = re.compile(r"<(?:br|/p|/div|/tr|/li|/h\d)\b[^>]*>", re.I)
BORDER = "-----Original Message-----"


def html_text(html: str, *, mail: bool = True) -> str:
    """The text of an HTML page or mail: blocks on lines of their own, lists with bullets, no markup.

    ``mail``: quotes of other mails are marked with ">" (and with a border line above, where the program wrote one).

    >>> html_text("<p>Yes,<br>please.</p><blockquote type=cite>Shall I?</blockquote>")
    'Yes,\\nplease.\\n\\n\\n> Shall I?'
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    html = html[:MOST_HTML].replace("\0", "")
    try:
        tree = HTMLTree.parse(html)
        if mail and tree.body is not None:
            _mark_quotes(tree)
        text = _plain(extract_plain_text, tree)
    except (ValueError, RuntimeError, TypeError, AttributeError):  # nested too deep, or nothing in it
        text = _bare(html)
    return text.replace("\u200b", "").replace("\xa0", " ").strip()


def _plain(extract: Any, tree: Any) -> str:
    return str(extract(tree, preserve_formatting=True, main_content=False, alt_texts=False, links=False))


def _mark_quotes(tree: Any) -> None:
    """Each quoted block becomes preformatted text with ">" before its lines: the innermost ones first."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    for node in list(tree.body.query_selector_all(_BORDERS)):
        if node.getattr("style") and not re.search(
            r"border-top:\s*solid\s+#(?:E1E1E1|B5C4DF)", node.getattr("style"), re.I
        ):
            continue  # only Outlook's own colours: other borders are decoration
        node.parent.insert_before(_lines(tree, [BORDER]), node)
    for node in reversed(list(tree.body.query_selector_all(_QUOTES))[:2000]):
        if node.parent is None:
            continue
        text = _plain(extract_plain_text, HTMLTree.parse(f"<body>{node.html}</body>")).strip("\n")
        is_container = node.tag == "div"  # Gmail's holds "On ... wrote:" and a blockquote, marked already
        lines = text.split("\n") if is_container else [f"> {line}" for line in text.split("\n")]
        node.parent.replace_child(_lines(tree, ["", *lines, ""]), node)


def _lines(tree: Any, lines: list[str]) -> Any:
    block = tree.create_element("pre")
    block.append_child(tree.create_text_node("\n".join(lines)))
    return block


def _bare(html: str) -> str:
    import html as entities

    text = _TAG.sub("", _BREAK.sub("\n", _HIDDEN.sub("", html)))
    return entities.unescape(text)
