"""What one person wrote in a mail: without the mails it quotes, signatures, and what machines put under it.

The programs' own forms are matched ("On ... wrote:", "-----Original Message-----", "Von: Gesendet: An: Betreff:").
Where it is not sure that a line is such a form, it stays. The quoted text is handed back: it may be the question.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ownchat.data.mail import phrases

LONGEST_SIGNATURE = 25  # lines under "--": more are text
LONGEST_QUOTE = 40_000  # characters that are kept of a quote: it may become a question
MOST_LINES = 20_000  # of one mail: what follows is a log, not a letter

# ">", "| >", and the initials or names that Emacs puts before it
_CITED = re.compile(r"[ \t]{0,8}(?:>|\|[ \t]*>|[A-Z][A-Za-z]{0,14}>{1,3}(?=[ \t]|$)|[a-z]{1,2}>{1,3}[ \t])")
_MARK = re.compile(r"^[ \t]{0,8}(?:[A-Z][A-Za-z]{0,14}|[a-z]{1,2})?(?:>|\|(?=[ \t]*>))[ \t]?", re.M)
_PROMPTS = ("SQL>", "PS>", "MariaDB>")
_BLANK_RUN = re.compile(r"\n(?:[ \t]*\n){2,}")
_ADDRESS = re.compile(r"[\w.+=-]+@[\w-]+(?:\.[\w-]+)+")
_CONTACT = re.compile(
    r"@[\w-]+\.\w|https?://|www\.|\+?\(?\d[\d ()/.-]{6,}\d|\b(?:tel|fax|phone|mobile?|cell|telefon|handy|gsm)\b[.:]?",
    re.I,
)
_PGP_HEAD = re.compile(r"^-----BEGIN PGP SIGNED MESSAGE-----\n(?:[A-Za-z]+: .*\n)*\n?", re.M)
_PGP_SIGNATURE = re.compile(
    r"^-----BEGIN PGP (?:SIGNATURE|PUBLIC KEY BLOCK)-----\n.*?(?:^-----END PGP [A-Z ]+-----[ \t]*$|\Z)", re.M | re.S
)
_PGP_MESSAGE = re.compile(r"^-----BEGIN PGP MESSAGE-----$", re.M)
_COLONS = (":", "：")


@dataclass(slots=True)
class Body:
    """What a mail says itself, what it quotes and from whom (as far as that is told), and what was cut."""

    text: str
    quoted: str = ""  # as it stands there, without its marks; see clean_quote
    quoted_name: str = ""
    quoted_address: str = ""
    answered: str = ""  # of an answer between the lines: the quoted paragraphs that own words stand directly under
    cuts: Counter[str] = field(default_factory=Counter)  # {"quote cut": characters}
    encrypted: bool = False


def clean(text: str) -> Body:
    """Take a mail's text apart.

    >>> body = clean("Yes.\\n\\nOn Mon, 2 Sep 2002, Jane wrote:\\n> Is it open?\\n\\n-- \\nBob")
    >>> body.text, body.quoted, sorted(body.cuts)
    ('Yes.', 'Is it open?', ['quote cut', 'signature cut'])
    """
    body = Body("")
    if "-----BEGIN PGP" in text:
        body.encrypted = _PGP_MESSAGE.search(text) is not None
        text = _PGP_SIGNATURE.sub(lambda match: _count(body, "signature cut", match[0]), _PGP_HEAD.sub("", text))
    if "Yahoo! Groups Sponsor" in text:
        text = phrases.SPONSOR.sub(lambda match: _count(body, "disclaimer cut", match[0]), text)
    lines = [line.rstrip() for line in text.split("\n")]
    lines = _cut_quotes(lines[:MOST_LINES], body) + lines[MOST_LINES:]
    _cut_machines(lines, body)
    _cut_signature(lines, body)
    _cut_machines(lines, body)
    _cut_ruled(lines, body)
    body.text = _BLANK_RUN.sub("\n\n", "\n".join(lines)).strip()
    return body


def clean_quote(quoted: str) -> str:
    """What the writer of a quoted mail wrote: without what that mail quotes itself, or its signature."""
    return clean(quoted).text


# ---------------------------------------------------------------------------------------------------------- quotes


def _cut_quotes(lines: list[str], body: Body) -> list[str]:
    """The lines without quotes, their attributions, and everything below a border."""
    top = next((at for at, line in enumerate(lines[:5]) if line), 0)
    if ":" in lines[top][-1:] or lines[top].startswith(phrases.OPENINGS):  # an attribution whose quote was taken out
        count = _attribution(lines, [False] * len(lines), top)
        follow = next((line for line in lines[top + count : top + count + 4] if line), "")
        told = phrases.DATED.search(" ".join(lines[top : top + count])) is not None
        if count and told and follow and not _CITED.match(follow):
            _count(body, "quote cut", "\n".join(lines[top : top + count]))
            lines = lines[top + count :]
    cited = [">" in line[:24] and _CITED.match(line) is not None and not line.startswith(_PROMPTS) for line in lines]
    end, forwarded = _border(lines, cited)
    own = lines[:end]
    quotes: list[str] = []
    if True in cited:
        own, quotes = _without_cited(lines[:end], cited[:end], body)
        body.answered = _answered(lines[:end], cited[:end])
    if end < len(lines):
        below = lines[end:]
        rest, author = _below(below)
        _note_author(body, author)
        _count(body, "forwarded text cut" if forwarded else "quote cut", "\n".join(below))
        if not forwarded and not quotes:
            quotes = rest
    if quotes:
        body.quoted = _without_attribution(_MARK.sub("", "\n".join(quotes)[:LONGEST_QUOTE]), body)
    return own


def _without_cited(lines: list[str], cited: list[bool], body: Body) -> tuple[list[str], list[str]]:
    """Lines that are not quoted, and those that are."""
    own: list[str] = []
    quotes: list[str] = []
    place, end = 0, len(lines)
    while place < end:
        if not cited[place]:
            own.append(lines[place])
            place += 1
            continue
        start = place
        while place < end and (cited[place] or (not lines[place] and _goes_on(lines, cited, place))):
            place += 1
        sure = lines[start].lstrip().startswith((">", "|")) or place - start > 1 or not any(own)
        attribution = _pop_attribution(own)
        if not (sure or attribution):
            own += lines[start:place]  # one line that begins with "A> " is no quote
            continue
        _note_author(body, attribution)
        quotes += [*([""] if quotes else []), *lines[start:place]]
        _count(body, "quote cut", "\n".join([*attribution, *lines[start:place]]))
    return own, quotes


def _answered(lines: Sequence[str], cited: Sequence[bool]) -> str:
    """The last paragraph of each quote that one's own words follow, where such quotes are several; else nothing."""
    asked: list[str] = []
    held: list[str] = []
    for line, quoted in zip(lines, cited, strict=True):
        if quoted:
            bare = _MARK.sub("", line).strip()
            held = [] if held and not held[-1] else held  # the paragraph before it
            held.append("" if _CITED.match(bare) else bare)
        elif line and any(held):
            if not _attribution([line], [False], 0):
                asked.append("\n".join(held).strip())
            held = []
    return "\n\n".join(asked)[:LONGEST_QUOTE] if len(asked) > 1 else ""


def _without_attribution(quoted: str, body: Body) -> str:
    """A quote without the line that tells whose it is, which Apple's programs put inside of it."""
    lines = [line.rstrip() for line in quoted.strip().split("\n")]
    if not (count := _attribution(lines, [False] * len(lines), 0)):
        return quoted
    _note_author(body, lines[:count])
    return "\n".join(lines[count:])


def _goes_on(lines: list[str], cited: list[bool], place: int) -> bool:
    """Whether the quote goes on after blank lines: without words of one's own between, it is one quote."""
    for following in range(place + 1, min(place + 3, len(lines))):
        if lines[following]:
            return cited[following]
    return False


def _border(lines: list[str], cited: Sequence[bool]) -> tuple[int, bool]:
    """The line from which on another mail stands below this one, and whether it is one that was passed on."""
    for place, line in enumerate(lines):
        if not line or cited[place]:
            continue
        if line[0] in "-_*= " and phrases.BORDER.match(line):
            forwarded = phrases.FORWARDED.search(line) is not None
            if forwarded or phrases.ORIGINAL.search(line) or _is_header_block(lines, place + 1):
                return place, forwarded
        if ":" not in line and "：" not in line:
            if not line.startswith(phrases.OPENINGS):
                continue
        elif ":" in line[:24] and phrases.HEADER_START.match(line) and _is_header_block(lines, place):
            return place, False
        elif phrases.FORWARDED_LINE.match(line):
            return place, True
        if line.startswith(phrases.OPENINGS) or line[:4].isdigit() or ("@" in line and line.endswith(_COLONS)):
            count = _attribution(lines, cited, place)
            if count:
                following = range(place + count, min(place + count + 4, len(lines)))
                follow = next((at for at in following if lines[at]), -1)
                told = phrases.TIMED.search(" ".join(lines[place : place + count])) is not None
                if (follow < 0 or not cited[follow]) and told:
                    return place, False  # or nothing but the attribution is left of the quote
    return len(lines), False


def _is_header_block(lines: list[str], place: int) -> bool:
    """Whether "From:", "Sent:", "To:", "Subject:" in some language stand here, at least three of them."""
    seen: set[int] = set()
    for line in lines[place : place + 9]:
        if not line:
            if seen:
                break
            continue
        if match := phrases.HEADER_LINE.match(line):
            seen.add(match.lastindex or 0)
        elif not seen:
            return False
    return 1 in seen and len(seen) >= 3


def _attribution(lines: list[str], cited: Sequence[bool], place: int) -> int:
    """How many lines from here on are one attribution with a date or an address; 0: none."""
    joined = ""
    for count in (1, 2, 3, 4):
        at = place + count - 1
        if at >= len(lines) or not lines[at] or cited[at]:
            return 0
        joined = f"{joined} {lines[at]}".strip()
        if len(joined) > 400:
            return 0
        if joined.endswith(_COLONS):
            return count if phrases.ATTRIBUTION.fullmatch(joined) else 0
    return 0


def _pop_attribution(own: list[str]) -> list[str]:
    """Take the attribution of the quote that follows off the end of the lines."""
    last = len(own) - 1
    while last >= max(0, len(own) - 3) and not own[last]:
        last -= 1
    if last < 0 or not own[last] or not (own[last].endswith(phrases.ATTRIBUTION_ENDS) or own[last].startswith("In ")):
        return []
    joined = ""
    for count in (1, 2, 3, 4):
        place = last - count + 1
        if place < 0 or not own[place] or len(joined) > 400:
            break
        joined = f"{own[place].strip()} {joined}".strip()
        whole = phrases.ATTRIBUTION.fullmatch(joined) is not None or phrases.BEFORE_QUOTE.match(joined) is not None
        if whole or (count == 1 and len(joined) < 200 and phrases.SAYS.search(joined)):
            if place > 0 and not own[place - 1].endswith((".", "!", "?")) and phrases.DATE_LINE.match(own[place - 1]):
                place -= 1
            taken = own[place:]
            del own[place:]
            return taken
    return []


def _below(lines: list[str]) -> tuple[list[str], list[str]]:
    """The text below a border, and the lines that tell who wrote it; only the first of several mails in a row."""
    nothing = [False] * len(lines)
    place = 0
    if count := _attribution(lines, nothing, 0):
        author, place = lines[:count], count
    else:
        while place < min(3, len(lines)) and not phrases.HEADER_START.match(lines[place]):
            place += 1
        start = place
        while place < min(start + 15, len(lines)):
            line = lines[place]
            if place > start + 1 and not phrases.HEADER_LINE.match(line):
                following = lines[place + 1] if not line and place + 1 < len(lines) else ""
                if not (phrases.HEADER_LINE.match(following) or line[:1].isspace() or "@" in line):
                    break
            place += 1
        author = [line for line in lines[start:place] if phrases.HEADER_START.match(line)][:1]
        if not author:
            place = 1
    rest = lines[place:]
    cited = [">" in line[:2] for line in rest]
    return rest[: _border(rest, cited)[0]], author


def _note_author(body: Body, attribution: list[str]) -> None:
    if body.quoted_name or body.quoted_address or not attribution:
        return
    text = " ".join(attribution)
    if (found := _ADDRESS.search(text)) and not text.startswith("In "):  # there a Message-ID stands
        body.quoted_address = found[0].lower()
    body.quoted_name = phrases.author(text)


# -------------------------------------------------------------------------------------- signatures and machines


def _cut_machines(lines: list[str], body: Body) -> None:
    """Cut list footers, advertisements, virus scanners' remarks and disclaimers: whole paragraphs at the end."""
    while True:
        end = len(lines)
        while end and not lines[end - 1]:
            end -= 1
        start = end
        while start and lines[start - 1]:
            start -= 1
        del lines[end:]
        if start == 0:
            break
        paragraph = "\n".join(lines[start:end])
        if not (why := _machine(paragraph)):
            break
        _count(body, why, paragraph)
        del lines[start:]
    for place in range(max(0, len(lines) - 12), len(lines)):  # a footer that stands close under the text
        line = lines[place]
        rules = line[:1] in "-_=*~#+ " and phrases.RULER.match(line) is not None
        if rules and phrases.FOOTER.search(" ".join(lines[place + 1 : place + 4])):
            _count(body, "disclaimer cut", "\n".join(lines[place:]))
            del lines[place:]
            return


def _machine(paragraph: str) -> str:
    start = paragraph.lstrip()
    first = start.partition("\n")[0]
    ruled = start[:1] in "-_=*~#+." and (phrases.RULER.fullmatch(first) is not None or first.rstrip() == "--")
    if ruled and ((first == start and len(first) > 3) or phrases.FOOTER.search(paragraph)):
        return "disclaimer cut"
    folded = paragraph[:600].casefold()
    if any(word in folded for word in phrases.DISCLAIMER_WORDS) and phrases.DISCLAIMER.search(folded):
        return "disclaimer cut"
    if len(paragraph) < 700 and phrases.FOOTER_ALONE.match(folded):
        return "disclaimer cut"
    return "signature cut" if len(paragraph) < 120 and phrases.DEVICE.fullmatch(paragraph.strip()) else ""


def _cut_signature(lines: list[str], body: Body) -> None:
    """Cut what stands under "--", the telephone's advertisement, and the address under a closing."""
    first = max(1, len(lines) - LONGEST_SIGNATURE)
    for place in range(first, len(lines)):
        if lines[place] in ("--", "—", "- --"):
            _count(body, "signature cut", "\n".join(lines[place:]))
            del lines[place:]
            break
    while lines and (not lines[-1] or (len(lines[-1]) < 120 and phrases.DEVICE.fullmatch(lines[-1].strip()))):
        _count(body, "signature cut", lines.pop())
    for place in range(len(lines) - 1, max(-1, len(lines) - 14), -1):
        if len(lines[place]) < 60 and phrases.CLOSING.fullmatch(lines[place].strip()):
            _cut_contact(lines, place, body)
            return


def _cut_contact(lines: list[str], closing: int, body: Body) -> None:
    """Under "Best regards," and a name: title, firm, telephone. Only where an address or a number is among them."""
    rest = [at for at in range(closing + 1, len(lines)) if lines[at]]
    if len(rest) < 2 or any(len(lines[at]) > 90 and not phrases.IMPRINT.search(lines[at]) for at in rest):
        return
    contact = rest[1:]
    asks = any("?" in lines[at] and "http" not in lines[at] for at in contact)
    if not asks and any(_CONTACT.search(lines[at]) or phrases.IMPRINT.search(lines[at]) for at in contact):
        _count(body, "signature cut", "\n".join(lines[contact[0] :]))
        del lines[contact[0] :]


def _cut_ruled(lines: list[str], body: Body) -> None:
    """Cut a name and an address under a rule at the end, as Japanese mails have it."""
    for place in range(len(lines) - 2, max(0, len(lines) - 14), -1):
        if not (lines[place][:1] in "-_=*~#+" and phrases.RULER.fullmatch(lines[place])):
            continue
        under = [line for line in lines[place + 1 :] if line and not phrases.RULER.fullmatch(line)]
        speaks = any(len(line) > 60 or line.endswith((".", "!", "?", "。", "！", "？", ":")) for line in under)
        if len(under) > 1 and not speaks and any(map(_CONTACT.search, under[1:])) and any(lines[:place]):
            _count(body, "signature cut", "\n".join(lines[place:]))
            del lines[place:]
        return


def _count(body: Body, rule: str, text: str) -> str:
    if size := len(text.strip()):
        body.cuts[rule] += size
    return ""
