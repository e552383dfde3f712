"""Web pages: main text as Markdown, navigation cut and counted, questions with answers as rows."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from understand_documents import changed, text_of, understand

from ownchat.data.documents.chapters import Cuts
from ownchat.data.documents.html import decode_html, recognise_html
from ownchat.data.documents.html_blocks import HtmlBlocks
from ownchat.data.files import open_file

PROSE = "The pump stops when the tank is empty, and starts again by itself after ten minutes. "
PAGE = f"""<!DOCTYPE html>
<html><head><title>Pumps - Acme</title><style>p {{}}</style><script>var x = "<p>no</p>";</script></head>
<body>
<header class="site-header"><a href="/">Acme</a></header>
<nav><ul><li><a href="/a">Products</a></li><li><a href="/b">Support</a></li></ul></nav>
<div class="breadcrumbs"><a href="/">Home</a> &gt; <a href="/s">Support</a></div>
<main>
<h1>Pumps &amp; valves</h1>
<p>{PROSE}<b>Never</b> open it&nbsp;hot.<br>Wait.</p>
<h2 id="x">Steps</h2>
<ol><li>Close the valve.</li><li>Wait:<ul><li>one</li><li>two</li></ul></li></ol>
<pre>start --now
  stop</pre>
<table><tr><th>Part</th><th>Price</th></tr><tr><td>Seal</td><td>4 €</td></tr></table>
<aside>A tip: oil it.</aside>
</main>
<footer>© Acme <a href="/imprint">Imprint</a></footer>
</body></html>"""


def test_a_page_becomes_markdown(tmp_path):
    reading, records, entries = understand(tmp_path / "pump.html", PAGE)
    assert reading.format == "html"
    assert text_of(records) == (
        f"# Pumps & valves\n\n{PROSE}Never open it\xa0hot.\nWait.\n\n## Steps\n\n1. Close the valve.\n2. Wait:\n"
        "  - one\n  - two\n\n```\nstart --now\n  stop\n```\n\nPart | Price\nSeal | 4 €\n\nA tip: oil it.\n"
    )
    assert changed(entries)["navigation cut"] >= 3
    assert sum(changed(entries).values()) <= 5


def test_pages_without_main_text_are_dropped(tmp_path):
    links = "".join(f'<li><a href="/{number}">Chapter {number} of the manual</a></li>' for number in range(40))
    _, records, entries = understand(
        tmp_path / "index.html", f"<html><body><h1>Contents</h1><ul>{links}</ul></body></html>"
    )
    assert not records
    assert [entry.rule for entry in entries if entry.fate == "dropped"] == ["no main text"]
    assert changed(entries) == {"list of links cut": 1}


def test_faq_pages_give_rows(tmp_path):
    pairs = [("How long is the <b>warranty</b>?", "<p>Two years.</p><p>Three for pumps.</p>"), ("Who pays?", "We do.")]
    entity = [
        {"@type": "Question", "name": q, "acceptedAnswer": {"@type": "Answer", "text": a}} for q, a in pairs
    ]  # fmt: skip
    script = json.dumps({"@context": "https://schema.org", "@type": "FAQPage", "mainEntity": entity})
    body = "".join(f"<h3>{q}</h3><div>{a}</div>" for q, a in pairs)
    page = f'<html><head><script type="application/ld+json">{script}</script></head><body>{body}</body></html>'
    reading, records, _ = understand(tmp_path / "faq.html", page)
    said = [[turn["content"] for turn in record["messages"]] for record in records]
    assert said == [["How long is the warranty?", "Two years.\n\nThree for pumps."], ["Who pays?", "We do."]]
    assert "2 questions" in reading.understood


def test_definition_lists_of_questions_give_rows(tmp_path):
    terms = "".join(f"<dt>What is part {n}?</dt><dd>It is seal {n}.<ul><li>red</li></ul></dd>" for n in range(4))
    _, records, _ = understand(tmp_path / "faq.html", f"<html><body><dl>{terms}</dl><p>{PROSE * 6}</p></body></html>")
    assert [record["kind"] for record in records] == ["conversation"] * 4 + ["document"]
    assert records[2]["messages"][1]["content"].startswith("It is seal 2.")
    assert records[4]["text"].strip() == (PROSE * 6).strip()


@pytest.mark.parametrize(
    "raw, expected",
    [
        ('<meta charset="windows-1251">Насос'.encode("cp1251"), "Насос"),
        ('<meta charset="shift_jis">ポンプ'.encode("shift_jis"), "ポンプ"),
        ('<meta charset="iso-2022-jp">ポンプ'.encode("iso2022_jp"), "ポンプ"),
        ('<meta charset="iso-8859-1">“Größe” 4 €'.encode("cp1252"), "“Größe” 4 €"),
        ('<meta charset="iso-8859-1">Größe'.encode(), "Größe"),  # says so, but is UTF-8
        ("<p>Größe".encode("utf-16"), "<p>Größe"),
        ('<meta charset="no-such-thing">Größe'.encode("cp1252"), "Größe"),
        ('<meta charset="hex">Größe'.encode("cp1252"), "Größe"),
    ],
)  # fmt: skip
def test_encodings(raw, expected):
    assert decode_html(raw).endswith(expected)


def test_deep_pages_keep_their_text():
    blocks = HtmlBlocks("<div>" * 20_000 + "the deepest &amp; last" + "</div>" * 20_000, Cuts("a")).blocks()
    assert "the deepest & last" in " ".join(block.text for block in blocks)


@pytest.mark.parametrize(
    "name, content, sure",
    [
        ("a", PAGE, 0.8),
        ("a.html", "<p>One</p><p>Two</p>", 0.6),
        ("a.txt", "I like the tags <b>bold</b> and <i>x</i>.", 0.0),
        ("a.xml", "<rss>" + "<p>x</p>" * 20 + "</rss>", 0.0),
    ],
)
def test_recognised_by_content(tmp_path, name, content, sure):
    (tmp_path / name).write_text(content)
    assert recognise_html(open_file(tmp_path / name, name)) == sure


WORDS = st.sampled_from(["pump", "valve", "Größe", "tank", "seal 7", "&amp;", "水泵"])
TAGS = st.sampled_from(["p", "div", "li", "ul", "b", "td", "tr", "table", "h2", "pre", "blockquote", "dd", "section"])


@given(st.lists(st.tuples(TAGS, WORDS, st.booleans()), max_size=30))
@settings(max_examples=50)
def test_no_word_is_lost_whatever_the_tags(parts):
    source = "<html><body>" + "".join(f"<{tag}>{word} " + f"</{tag}>" * close for tag, word, close in parts)
    found = " ".join(block.text for block in HtmlBlocks(source, Cuts("a")).blocks())
    for _, word, _ in parts:
        plain = word.replace("&amp;", "&")
        assert found.count(plain) >= sum(other == word for _, other, _ in parts)
