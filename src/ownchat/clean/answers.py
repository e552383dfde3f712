"""Whether two answers to one question say different things, and whether a question has one answer at all.

Rules that can be read and argued with. Two sentences are compared when they are alike once numbers, dates, links and
names are taken out of them: "Delivery takes 3 days" and "Delivery takes five days" then differ in what was taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

LABEL_WORDS = 3  # of an answer that can be a label
ALIKE = 0.75  # shared share of the words of two sentences that speak of the same
LEAST_SHARED = 2  # telling words that two sentences must share
MOST_SENTENCES = 15  # of an answer that are looked at
_LATIN_SLIP = 8  # letters of a word in which two may differ

_COUNTED = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_COUNTED.split())} | {
    "twenty": "20",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "ninety": "90",
    "hundred": "100",
}
_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_MONTHS = "january|february|march|april|june|july|august|september|october|november|december"
_DIGITS = r"\d+(?:[.,]\d+)*"
_VALUE = re.compile(
    rf"(?P<private>\[[A-Z][A-Z_]*(?:_\d+)?\])|(?P<mail>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)|"
    rf"(?P<link>(?:https?://|www\.)[^\s)\]>,;\"']*[^\s)\]>,;\"'.?!])|"
    rf"(?P<price>[$€£¥]\s?{_DIGITS}|\b{_DIGITS}\s?(?:[$€£¥]|(?:dollars?|euros?|pounds?|usd|eur|gbp|sek|kr|kronor)\b))|"
    rf"(?P<percent>\b{_DIGITS}\s?(?:%|percent\b|per cent\b))|"
    rf"(?P<date>\b\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}\b)|(?P<time>\b\d{{1,2}}(?:[:.]\d\d)?\s?[ap]\.?m\b|\b\d{{1,2}}:\d\d\b)|"
    rf"(?P<day>\b(?:{_DAYS})s?\b)|(?P<month>\b(?:{_MONTHS})\b)|"
    rf"(?P<number>\b{_DIGITS}\b|\b(?:{'|'.join(_NUMBER_WORDS)})\b)",
    re.IGNORECASE,
)
_AMOUNTS = ("price", "percent", "number")
_CURRENCIES = ("sek", "kr", "kronor", "eur", "euro", "usd", "dollar", "gbp", "pound")
_STATED = ("mail", "link", "price", "percent", "date", "time")
_ONE_NUMBER = rf"(?:{_DIGITS}|{'|'.join(_NUMBER_WORDS)})"
_AMOUNT = re.compile(
    rf"\b(?P<low>{_ONE_NUMBER})(?:\s*(?:-|–|to|or|and)\s*(?P<high>{_ONE_NUMBER}))?[\s-]?"
    r"(?:(?:working|business|calendar|full|square|cubic)\s)?"
    r"(?P<unit>second|minute|hour|day|night|week|month|year|metre|meter|mile|kilometre|kilometer|km|cm|mm|kg|gram|litre|"
    r"liter|degree|sek|kr|kronor|eur|euro|usd|dollar|gbp|pound)s?\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|<\w+>")
_NAME = re.compile(r"(?<=[a-z,;:] )(?:[A-ZÄÖÜÅÉ][\w'’-]+)(?: [A-ZÄÖÜÅÉ][\w'’-]+)*")
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|none|nothing|cannot|without)\b|n['’]t\b", re.IGNORECASE)
_NEGATED = re.compile(r"(ca|wo|sha)n['’]t\b|\bcannot\b", re.IGNORECASE)
_PLAIN = {"ca": "can not", "wo": "will not", "sha": "shall not"}
_OPPOSITES = [
    ("open", "closed"), ("allowed", "forbidden"), ("allowed", "prohibited"), ("permitted", "forbidden"),
    ("always", "never"), ("before", "after"), ("with", "without"), ("included", "excluded"), ("includes", "excludes"),
    ("possible", "impossible"), ("available", "unavailable"), ("enable", "disable"), ("enabled", "disabled"),
    ("required", "optional"), ("mandatory", "optional"), ("increase", "decrease"), ("increases", "decreases"),
    ("minimum", "maximum"), ("least", "most"), ("left", "right"), ("legal", "illegal"), ("safe", "unsafe"),
    ("safe", "dangerous"), ("true", "false"), ("taxable", "exempt"), ("refundable", "nonrefundable"),
    ("above", "below"), ("inside", "outside"), ("accept", "refuse"), ("accepted", "refused"), ("can", "never"),
]  # fmt: skip
_POLES = frozenset(word for pair in _OPPOSITES for word in pair)
_NEGATING = ("without", "never")  # opposites that are negations, too
_LIGHT_WORDS = "a an the of to for it its that this there so is are was were be in on at by and or as"
_LIGHT = frozenset(_LIGHT_WORDS.split())
_YES = re.compile(r"\W*(?:yes|yeah|yep|sure|certainly|absolutely|definitely|correct|of course|that is correct)\b", re.I)
_NO = re.compile(
    r"\W*(?:(?:sorry|unfortunately)\W+)?(?:no\b(?!\s+(?:problem|worries|matter|need))|nope\b|not\b|never\b)", re.I
)
_SMALL_TALK_WORDS = (
    "hi hello hey thanks thank you welcome ok okay yes no sure good great fine bye goodbye cool nice sorry please well "
    "yeah yep nope right alright morning evening night"
)
_SMALL_TALK = frozenset(_SMALL_TALK_WORDS.split())

_ASKS = re.compile(
    r"\b(?:what|when|where|who|whom|whose|which|how|why|is|are|was|were|do|does|did|can|could|will|would|should|may|must|"
    r"has|have)\b|[?？]",
    re.IGNORECASE,
)
# What has many right answers: wishes for a text or a choice, what changes from day to day, and talk about the speaker.
_MANY = re.compile(
    r"\b(?:write|generate|create|compose|invent|make up|rewrite|rephrase|summari[sz]e|translate|story|poem|joke|haiku|"
    r"song|suggest\w*|recommend\w*|examples?|random|pick|choose|guess|imagine|describe|brainstorm|"
    r"tell me (?:a|an|something|about)|give (?:me|us)|show me|list|name (?:a|an|some|one|two|three|five|\d+)|"
    r"find|search|book|reserve|play|looking for|another|else|again|"
    r"today|tonight|tomorrow|yesterday|now|currently|latest|recent|news|weather|nearest|nearby|near me|closest|"
    r"this (?:week|month|year|morning|afternoon|evening|weekend)|next|"
    r"are you (?:an? |human|real|sure|there|ok|okay|happy|sad|alive|sentient|stupid|crazy|able to|smart|afraid)|"
    r"(?:what|which) (?:kinds?|types?|sorts?)|"
    r"how are you|what are you|who are you|do you (?:like|love|hate|feel|think|know|want|believe|"
    r"remember|get|eat|sleep|dream|have (?:a|any) (?:name|feelings|friends|family))|"
    r"(?:what(?:'s| is)|who(?:'s| is)) (?:your|up)|your (?:name|age|favou?rite|opinion|job|hobb\w+))\b",
    re.IGNORECASE,
)
# What is about one person's case: "where is my order", "I want ...", but not "how do I reset my password".
_OWN = re.compile(
    r"\b(?:where|what|when|why|which|how much|how many)(?:['’]s| is| are| was| were| did| does| do| will| has| have)?\b"
    r"[^?.!]*\b(?:my|mine|our)\b|"
    r"(?:^|[.!?,]\s*)(?:is|are|was|were|has|have|did|will|am) (?:my|our|i|we)\b|"
    r"\b(?:i|we)(?: am|['’]m| was| were| want| wanted| need| needed| would like|['’]d like| have|['’]ve| had| got|"
    r" lost| bought| ordered| paid| received| did| didn['’]t| just| tried| live)\b",
    re.IGNORECASE,
)
_MINE = re.compile(r"\b(?:my|mine|our)\b", re.IGNORECASE)
_ANYBODY = re.compile(
    r"\bhow (?:do|does|can|could|should|to|long|often|many|much)\b|\b(?:can|may|should|must|could) (?:i|we)\b|"
    r"\bwhat (?:happens|do i|do we|if)\b|\bdo (?:i|we) (?:need|have)\b|\bis it\b",
    re.IGNORECASE,
)
_OWN_ANSWER = re.compile(
    r"\b(?:i(?:['’]ve| have| can see| see| found| checked| looked|['’]m| am|['’]ll| will| think| guess| like| love|"
    r" would| was| believe)|"
    r"your (?:\w+ ){0,2}(?:balance|order|booking|reservation|parcel|package|flight|appointment|ticket|refund|account)"
    r" (?:is|was|has|will)|you (?:currently )?(?:have|owe|currently)|there (?:are|is) (?:\d+|one|two|three|several)|"
    r"we(?:['’]ve| have) (?:sent|received|refunded|shipped|cancell?ed|booked|found|updated))\b",
    re.IGNORECASE,
)


def has_one_answer(question: str) -> bool:
    """Whether a question asks for something that does not depend on who asks, when, or on taste.

    >>> [has_one_answer(text) for text in ("How long does delivery take?", "Where is my order?", "Tell me a joke")]
    [True, False, False]
    """
    own = _OWN.search(question) or (_MINE.search(question) and not _ANYBODY.search(question))
    return bool(_ASKS.search(question)) and not _MANY.search(question) and not own


def one_slip(first: str, second: str, fillers: set[str]) -> bool:
    """Whether two questions are the same but for fillers and at most one word that was mistyped or inflected.

    >>> one_slip("How long does delivery take?", "how long does dellivery take please", {"please", "does"})
    True
    >>> one_slip("Is it open on Monday?", "Is it open on Sunday?", set())
    False
    """
    words = [[word.lower() for word in re.findall(r"[^\W_]+", text) if word.lower() not in fillers]
             for text in (first, second)]  # fmt: skip
    if words[0] == words[1]:
        return True
    if len(words[0]) != len(words[1]):
        return False
    apart = [(a, b) for a, b in zip(*words, strict=True) if a != b]
    if len(apart) != 1:
        return False
    one, other = apart[0]
    if min(len(one), len(other)) < 4 or any(character.isdigit() for character in one + other):
        return False
    if {one, other} & _POLES or one[:2] != other[:2]:
        return False
    return _distance(one, other) <= (2 if min(len(one), len(other)) >= _LATIN_SLIP else 1)


def disagreement(first: str, second: str, *, labels: bool = False) -> str | None:
    """What two answers to one question disagree on, or none. ``labels``: both answers stand in many records.

    >>> disagreement("Delivery takes 3 days.", "Delivery takes five days.")
    'number: 3 / 5'
    >>> disagreement("You can return shoes.", "You can't return shoes.")
    'negation'
    >>> disagreement("Delivery takes 3 days.", "We deliver on Monday and Tuesday.")
    """
    if labels:
        words = [set(_WORD.findall(text.lower().replace("_", " "))) for text in (first, second)]
        short = all(0 < len(text.replace("_", " ").split()) <= LABEL_WORDS for text in (first, second))
        if short and not words[0] & words[1] and not (words[0] | words[1]) & _SMALL_TALK:
            return f"label: {first.strip()} / {second.strip()}"
    if _OWN_ANSWER.search(first) or _OWN_ANSWER.search(second):
        return None
    if (_YES.match(first) and _NO.match(second)) or (_NO.match(first) and _YES.match(second)):
        return "yes / no"
    one, other = _sentences(first), _sentences(second)
    everywhere = [_all_values(sentences) for sentences in (one, other)]
    for a in one:
        for b in other:
            names = a.values.get("name", frozenset()) & b.values.get("name", frozenset())
            if len(a.words & b.words) + len(names) >= LEAST_SHARED and _alike(a.words, b.words):
                found = _apart(a, b, everywhere)
                if found is not None:
                    return found
    return None


def stated(text: str) -> dict[str, frozenset[str]]:
    """What a text states in figures: prices, percentages, dates, times, amounts by their unit, links and addresses.

    Of a value that can be read in two ways both readings stand there. Bare numbers are left out: of them nobody can
    say what they count.

    >>> {kind: sorted(found) for kind, found in stated("$30 until 5 p.m., in 2 to 3 working days").items()}
    {'price': ['30'], 'time': ['17:00'], 'days': ['2', '3']}
    """
    found: dict[str, set[str]] = {}
    for match in _VALUE.finditer(text):
        if (kind := match.lastgroup or "") in _STATED:
            found.setdefault(kind, set()).update(_readings(kind, match[0].lower()))
    for match in _AMOUNT.finditer(text):
        for amount in (match["low"], match["high"]):
            if amount:
                kind = "price" if match["unit"].lower() in _CURRENCIES else f"{match['unit'].lower()}s"
                found.setdefault(kind, set()).update(_readings("number", amount.lower()))
    return {kind: frozenset(values) for kind, values in found.items()}


# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sentence:
    words: frozenset[str]  # without values, negations, opposites and light words
    all_words: frozenset[str]
    values: dict[str, frozenset[str]]  # kind -> values; of one that can be read in two ways both
    said: dict[str, frozenset[str]]  # kind -> values as they are shown
    negations: int


def _sentences(text: str) -> list[_Sentence]:
    found = []
    for raw in _SENTENCE.split(text)[:MOST_SENTENCES]:
        values: dict[str, set[str]] = {}
        said: dict[str, set[str]] = {}

        def take(match: re.Match[str], values: dict[str, set[str]] = values, said: dict[str, set[str]] = said) -> str:
            kind = match.lastgroup or ""
            readings = _readings(kind, match[0].lower())
            values.setdefault(kind, set()).update(readings)
            shown = readings[:1] if kind in _AMOUNTS else readings
            said.setdefault(kind, set()).add(" or ".join(shown))
            return f" <{kind}> "

        masked = _VALUE.sub(take, raw)
        for name in _NAME.findall(masked):
            values.setdefault("name", set()).add(name)
            said.setdefault("name", set()).add(name)
        masked = _NAME.sub("<name>", masked)
        plain = _NEGATED.sub(lambda match: _PLAIN.get((match[1] or "ca").lower(), "can not"), masked)
        negations = len(_NEGATION.findall(plain))
        words = frozenset(_WORD.findall(re.sub(r"n['’]t\b", "", _NEGATION.sub(" ", plain)).lower()))
        telling = frozenset(word for word in words - _LIGHT - _POLES if not word.startswith("<"))
        every = frozenset(_WORD.findall(plain.lower()))
        kinds, shown = ({k: frozenset(v) for k, v in some.items()} for some in (values, said))
        found.append(_Sentence(telling, every, kinds, shown, negations))
    return found


def _apart(a: _Sentence, b: _Sentence, everywhere: list[dict[str, set[str]]]) -> str | None:
    for kind in sorted(a.values.keys() & b.values.keys() - {"private"}):
        ours, theirs = a.values[kind], b.values[kind]
        if kind == "name":
            left, right = ours - everywhere[1][kind], theirs - everywhere[0][kind]
            if a.words == b.words and (len(left), len(right)) == (1, 1):  # of lists of names both may be right
                return f"name: {', '.join(left)} / {', '.join(right)}"
            continue
        apart = not ours & everywhere[1][kind] and not theirs & everywhere[0][kind]
        # "150 to 250 metres", "152 to 250 metres": all else is the same, and each says what the other does not.
        same_frame = (
            a.words == b.words and a.all_words & _POLES == b.all_words & _POLES and a.values.keys() == b.values.keys()
        )
        if apart or (same_frame and ours - everywhere[1][kind] and theirs - everywhere[0][kind]):
            return f"{kind}: {', '.join(sorted(a.said[kind]))} / {', '.join(sorted(b.said[kind]))}"
    if a.values.get("number") != b.values.get("number"):  # something else is said
        return None
    poles = [(sentence.all_words & _POLES) - set(_NEGATING) for sentence in (a, b)]
    if a.negations % 2 != b.negations % 2 and a.words == b.words and poles[0] == poles[1]:
        return "negation"
    for one, other in _OPPOSITES:
        for x, y in ((one, other), (other, one)):
            here = x in a.all_words and y in b.all_words and y not in a.all_words and x not in b.all_words
            negations = a.negations - (x in _NEGATING), b.negations - (y in _NEGATING)
            if here and a.words == b.words and negations[0] == negations[1]:
                return f"opposites: {x} / {y}"
    return None


def _all_values(sentences: list[_Sentence]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for sentence in sentences:
        for kind, values in sentence.values.items():
            found.setdefault(kind, set()).update(values)
    return found


def _alike(first: frozenset[str], second: frozenset[str]) -> bool:
    return len(first & second) >= ALIKE * len(first | second)


def _readings(kind: str, text: str) -> list[str]:
    """What a value says, in one form for every way to write it; several where it can be read in several ways.

    >>> _readings("time", "9 a.m"), _readings("date", "31/12/2024"), _readings("date", "03/04/24")
    (['09:00'], ['2024-12-31'], ['2024-03-04', '2024-04-03'])
    """
    plain = re.sub(r"\s", "", text.rstrip("/"))
    if kind in _AMOUNTS:
        return [_NUMBER_WORDS[plain]] if plain in _NUMBER_WORDS else _plain_numbers(plain)
    if kind == "time":
        return _clocks(plain) or [plain]
    if kind == "date":
        return sorted(set(_dates(plain))) or [plain]
    return [plain.rstrip("s") if kind == "day" else plain]


def _clocks(text: str) -> list[str]:
    """A time of day by 24 hours; "5:00" may be in the morning or in the afternoon, "05:00" and "17:00" are told."""
    match = re.fullmatch(r"(\d+)(?:[:.](\d\d))?(?:([ap])\.?m)?", text)
    if match is None or int(match[1]) > 24:
        return []
    hour, minute = int(match[1]), match[2] or "00"
    if match[3]:
        hours = [hour % 12 + 12 * (match[3] == "p")] if hour <= 12 else [hour]
    else:
        hours = [hour, hour + 12] if len(match[1]) == 1 or hour in (10, 11) else [hour % 24]
    return [f"{hour:02}:{minute}" for hour in hours]


def _dates(text: str) -> Iterator[str]:
    """The days that a date can mean: year first, or day and month in either order (with points the day is first)."""
    one, two, three = parts = re.split(r"[-/.]", text)
    orders = [(one, two, three)] if len(one) == 4 else [(three, two, one)] if "." in text else [
        (three, two, one), (three, one, two)]  # fmt: skip
    for year, month, day in orders:
        if len(year) in (2, 4) and max(map(len, parts)) <= 4:
            try:
                yield date(int(year) + 2000 * (len(year) == 2), int(month), int(day)).isoformat()
            except ValueError:
                continue


def _plain_numbers(text: str) -> list[str]:
    """A number without its sign and thousands; one mark before three digits can be of thousands or of decimals.

    >>> _plain_numbers("$1,200.00"), _plain_numbers("0.500 percent"), _plain_numbers("1.500")
    (['1200'], ['0.5'], ['1500', '1.5'])
    """
    digits = re.sub(r"[^\d.,]", "", text).strip(".,")
    marks = re.findall(r"[.,]", digits)
    if len(set(marks)) == 1 and len(marks) > 1:  # 1.200.000
        return [re.sub(r"[.,]", "", digits)]
    whole, mark, decimals = digits.rpartition(marks[-1]) if marks else (digits, "", "")
    whole = re.sub(r"[.,]", "", whole)
    fraction = f"{whole}.{decimals}".rstrip("0").rstrip(".")
    if len(marks) == 1 and len(decimals) == 3 and len(whole) <= 3 and not whole.startswith("0"):
        return [whole + decimals, fraction]
    return [fraction] if mark else [whole]


def _distance(one: str, other: str) -> int:
    """Letters to insert, delete or replace (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
