"""The openly licensed labelled sets as texts with spans in the tagger's labels, each cut into training and held-back.

A span is ``(start, end, labels)`` in code points; more than one label means that the set does not tell which is right,
and training takes any of them. What no span covers is ``O``. Held back and never trained on: MultiDoGO's dev split,
presidio-research templates whose id is divisible by five, WNUT17's dev split, every second document of wikigold, every
second text of pii_syn_nano.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

Span = tuple[int, int, tuple[str, ...]]
Example = tuple[str, list[Span]]

DOMAINS = ("airline", "fastfood", "finance", "insurance", "media", "software")
MULTIDOGO = {
    "name": "person", "username": "person", "email_address": "email", "phone_number": "phone", "phonenumber": "phone",
    "address": "address", "current_zipcode": "address", "new_zipcode": "address", "ssn": "national_id",
    "card_number": "card", "account_number": "bank_account", "target_account_number": "bank_account",
    "account_id": "bank_account", "booking_confirmation_number": "reference", "policyid": "reference",
    "claimid": "reference", "password": "password", "current_city": "place", "new_city": "place",
    "departure_city": "place", "arrival_city": "place", "company_name": "organisation", "start_date": "date",
    "end_date": "date", "charge_date": "date", "lastuseddate": "date", "date": "date",
}  # fmt: skip
PRESIDIO = {
    "PERSON": "person", "TITLE": "person", "PREFIX": "person", "ADDRESS": "address", "LOCATION": "place",
    "ORGANIZATION": "organisation", "CREDIT_CARD": "card", "PHONE_NUMBER": "phone", "DATE_TIME": "date",
    "EMAIL_ADDRESS": "email", "US_SSN": "national_id", "IBAN_CODE": "bank_account",
    "US_DRIVER_LICENSE": "driving_licence",
}  # fmt: skip
CONLL = {"PER": "person", "person": "person", "LOC": "place", "location": "place", "ORG": "organisation",
    "corporation": "organisation"}  # fmt: skip
SGD = {
    "phone_number": "phone", "street_address": "address", "address": "address", "venue_address": "address",
    "address_of_location": "address", "directed_by": "person", "artist": "person", "doctor_name": "person",
    "city": "place", "city_of_event": "place", "origin_city": "place", "destination_city": "place", "location": "place",
    "from_location": "place", "to_location": "place", "pickup_city": "place", "area": "place",
}  # fmt: skip
SGD_OPEN = ("organisation", "place", "person", "O")  # names of restaurants, films, songs: somebody's or nobody's
PII_SYN = {
    "PERSON": "person", "EMAIL": "email", "PASSWORD": "password", "SSN": "national_id", "ORGANIZATION": "organisation",
    "ORG": "organisation", "PASSPORT": "passport", "PASSPORT_NUM": "passport", "TAX_ID": "tax_id", "TAXID": "tax_id",
    "PAN": "tax_id", "PHONE": "phone", "PATIENT_ID": "reference", "INSURANCE_ID": "reference",
    "EMPLOYEE_ID": "reference", "MEDICAL_RECORD": "reference", "INSURANCE_POLICY_NUM": "reference",
    "ACCOUNT": "bank_account", "ACCOUNT_NUMBER": "bank_account", "ACCOUNT_NUM": "bank_account",
    "BANK_ACCOUNT": "bank_account", "BANK_ACCOUNT_NUM": "bank_account", "ROUTING_NUMBER": "bank_account",
    "IBAN": "bank_account", "DRIVER_LICENSE": "driving_licence", "DRIVERS_LICENSE": "driving_licence",
    "DRIVER_LICENSE_NUM": "driving_licence", "LICENSE": "driving_licence", "AADHAR": "national_id",
    "VOTER_ID": "national_id", "CREDIT_CARD": "card", "USERID": "username", "USER_ID": "username",
    "USERNAME": "username",
}  # fmt: skip
_DATE = re.compile(
    r"\b(?:(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?|(?:mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|(?:19|20)\d\d(?:s|-\d\d-\d\d)?|\d{1,2}(?:st|nd|rd|th)?|today|tomorrow|yesterday|\d{1,2}[/.]\d{1,2}[/.]\d{2,4})\b",
    re.IGNORECASE,
)


def maybe_dates(text: str, spans: list[Span]) -> list[Span]:
    """The spans, and ``O or date`` for what looks like part of a date where the set does not label dates."""
    covered = [(start, end) for start, end, _ in spans]
    found = [match.span() for match in _DATE.finditer(text)]
    free = [(a, b) for a, b in found if not any(start < b and a < end for start, end in covered)]
    return spans + [(a, b, ("O", "date")) for a, b in free]


def read_multidogo(root: Path, split: str, domain: str) -> Iterator[tuple[list[str], list[str]]]:
    """Words and slot labels of each customer turn; turns whose labels do not fit their words are left out."""
    with gzip.open(root / "multidogo/turn_level" / domain / f"{split}.tsv.gz", "rt", encoding="utf-8") as handle:
        next(handle)
        for line in handle:
            cells = line.rstrip("\n").split("\t")
            if len(cells) >= 5 and len(cells[3].split()) == len(cells[4].split()):
                yield cells[3].split(), cells[4].split()


def multidogo(root: Path, split: str, domain: str) -> Iterator[Example]:
    for words, labels in read_multidogo(root, split, domain):
        text, spans = join(words, [MULTIDOGO.get(label) for label in labels])
        yield text, maybe_dates(text, spans)


def join(words: list[str], labels: list[str | None], *, tight: bool = False) -> tuple[str, list[Span]]:
    """Words with spaces between them (``tight``: as printed, no space before most marks) and their spans."""
    text, spans = "", list[Span]()
    glue = True
    for word, label in zip(words, labels, strict=True):
        if not glue and not (tight and (word in ".,;:!?)%]" or word.startswith(("'", "n't")))):
            text += " "
        glue = tight and word in "(["
        if label:
            spans.append((len(text), len(text) + len(word), (label,)))
        text += word
    return text, spans


def presidio(root: Path, *, held_back: bool) -> Iterator[Example]:
    rows = json.loads((root / "presidio_research/generated_large.json").read_text(encoding="utf-8"))
    for row in rows:
        if "{" in row["full_text"] or (row["template_id"] % 5 == 0) != held_back:
            continue
        spans: list[Span] = []
        for span in row["spans"]:
            label = PRESIDIO.get(span["entity_type"])
            labels = (label,) if label else ("O", "reference", "email", "organisation")
            spans.append((span["start_position"], span["end_position"], labels))
        yield row["full_text"], spans


def read_conll(path: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Document number, words and tags of each sentence."""
    words, tags, document = list[str](), list[str](), 0
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        cells = line.split()
        if line.startswith("-DOCSTART-"):
            document += 1
        elif len(cells) < 2:
            if words:
                yield document, words, tags
            words, tags = [], []
        else:
            words.append(cells[0])
            tags.append(cells[-1])


def named(root: Path, which: str) -> Iterator[Example]:
    """``which``: wnut-train, wnut-dev, btc, wikigold-train or wikigold-held."""
    base = root / "ner_open"
    file = "dev/emerging.dev.conll" if which.endswith("dev") else "train/wnut17train.conll"
    paths = {
        "wnut": [base / "WNUT17/CONLL-format/data" / file],
        "btc": sorted((base / "BTC/CONLL-format/data").glob("*.conll")),
        "wikigold": [base / "wikigold/CONLL-format/data/wikigold.conll.txt"],
    }[which.split("-")[0]]  # fmt: skip
    for path in paths:
        for document, words, tags in read_conll(path):
            if which.startswith("wikigold") and (document % 2 == 1) != which.endswith("held"):
                continue
            labels: list[str | None] = []
            for word, tag in zip(words, tags, strict=True):
                kind = tag.partition("-")[2]
                labels.append(
                    "username" if word[0] == "@" and len(word) > 1 else CONLL.get(kind) or (kind and "?") or None
                )
            text, spans = join(words, labels, tight=True)
            unsure = ("O", "organisation", "place")
            yield text, maybe_dates(text, [(a, b, unsure if c == ("?",) else c) for a, b, c in spans])


def pii_syn(root: Path, *, held_back: bool) -> Iterator[Example]:
    rows = json.loads((root / "pii_syn_nano/pii_syn_nano_en.json").read_text(encoding="utf-8"))
    for number, row in enumerate(rows):
        if (number % 2 == 1) != held_back:
            continue
        spans: list[Span] = []
        for entity in row["NER"]:
            value, label = entity["entity"].strip("*'\" "), PII_SYN.get(entity["label"])
            at = row["text"].find(value) if value else -1
            if at >= 0:
                spans.append((at, at + len(value), (label,) if label else ("O", "organisation", "reference")))
        yield row["text"], maybe_dates(row["text"], spans)


def sgd(root: Path, files: int) -> Iterator[Example]:
    """Turns of both sides; slots that name somebody or something are spans."""
    for path in sorted((root / "sgd/train").glob("dialogues_*.json.gz"))[:files]:
        with gzip.open(path, "rt", encoding="utf-8") as handle:
            dialogues = json.load(handle)
        for dialogue in dialogues:
            for turn in dialogue["turns"]:
                spans = []
                for frame in turn["frames"]:
                    for slot in frame["slots"]:
                        name = slot["slot"]
                        if "date" in name:
                            labels: tuple[str, ...] = ("date",)
                        elif re.search(
                            r"time|price|fare|number_of|rating|temp|wind|hum|prec|amount|balance|rent", name
                        ):
                            labels = ("O",)
                        else:
                            labels = (SGD[name],) if SGD.get(name) in ("phone", "address", "place") else SGD_OPEN
                        spans.append((slot["start"], slot["exclusive_end"], labels))
                yield turn["utterance"], maybe_dates(turn["utterance"], spans)


def questions(root: Path) -> Iterator[Example]:
    """Questions to a bank and to an assistant: nearly always without private data. Some also Written Like Headings."""
    with open(root / "banking77/train.csv", encoding="utf-8", newline="") as handle:
        texts = [row["text"] for row in csv.DictReader(handle)]
    data = json.loads((root / "clinc150/data_full.json").read_text(encoding="utf-8"))
    named = ("change_user_name", "user_name", "make_call", "text", "what_is_your_name", "change_ai_name")
    texts += [text for text, intent in data["train"] if intent not in named]
    for number, text in enumerate(texts[::3]):
        yield text, maybe_dates(text, [(a, b, ("O", "place", "organisation")) for a, b in _capitals(text)])
        if number % 6 == 0 and text == text.lower():
            yield text.title(), maybe_dates(text, [])


_CAPITAL = re.compile(r"\w*[^\W\d_a-z]\w*")
_NUMBER = re.compile(r"\w*\d\w*")


def _capitals(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _CAPITAL.finditer(text) if any(map(str.isupper, match[0]))]


def web(root: Path, is_common: Callable[[str], bool], *, every: int = 2) -> Iterator[Example]:
    """Paragraphs of web pages and of an encyclopedia with no labels: a word without capital and digit is no name.

    Nor is one that is common with a small letter (``is_common``), though it may be in the name of an office.
    """
    texts = [json.loads(line)["text"] for line in (root / "plain_text/c4_demo.jsonl").open(encoding="utf-8")]
    texts += (root / "plain_text/wiki_demo.txt").read_text(encoding="utf-8").split("\n")
    for text in texts:
        for sentence in re.split(r"(?<=[.?!])\s+|\n", text)[::every]:
            if 20 < len(sentence) < 600:
                yield sentence, _open(sentence, is_common)


def _open(text: str, is_common: Callable[[str], bool]) -> list[Span]:
    anything = ("O", "person", "place", "organisation", "date", "address", "reference", "phone", "email")
    spans: list[Span] = []
    for a, b in _capitals(text):
        spans.append((a, b, ("O", "place", "organisation", "date") if is_common(text[a:b].lower()) else anything))
    for match in _NUMBER.finditer(text):
        if not _CAPITAL.fullmatch(match[0]):
            spans.append((*match.span(), ("O", "date") if len(match[0]) < 5 else anything))
    return spans


def reviews(root: Path) -> Iterator[Example]:
    """Every second sentence of product reviews: models and makers, hardly ever a person."""
    with zipfile.ZipFile(root / "nltk_reviews/product_reviews_1.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt") and "README" not in name:
                lines = [
                    line.split("##", 1)[1] for line in archive.read(name).decode("latin-1").split("\n") if "##" in line
                ]
                for text in lines[::2]:
                    opened = [(a, b, ("O", "organisation", "person")) for a, b in _capitals(text)]
                    yield text.strip(), [(a, b, c) for a, b, c in opened if a and b - a > 1]


_SAID = re.compile(r"\[\d\d:\d\d\] <([^>]{1,30})> (.*)")


def channel(root: Path) -> Iterator[Example]:
    """Talk about computers (Ubuntu IRC, train): the names that people go by there are open, the rest is nobody."""
    for path in sorted((root / "ubuntu_irc/train").glob("*.raw.txt.gz"))[::3]:
        with gzip.open(path, "rt", encoding="utf-8", errors="ignore") as handle:
            said = [match.groups() for match in map(_SAID.match, handle) if match]
        nicks = {nick.strip("_|`[]~").lower() for nick, _ in said}
        for _, text in said[::4]:
            spans: list[Span] = []
            for match in re.finditer(r"[^\s:,<>()]{2,}", text):
                word, first = (
                    match[0].lower().strip("_|`[]~"),
                    not match.start() and text[match.end() : match.end() + 1] in ":,",
                )
                if first or any(map(str.isdigit, word)) or "@" in word or word in nicks or match[0] != word:
                    spans.append((*match.span(), ("O", "username", "person", "reference", "email", "organisation")))
            yield text.strip(), spans


def sums(root: Path) -> Iterator[Example]:
    """Word problems: numbers that are only numbers; who has the apples is open."""
    with gzip.open(root / "instruct_small/gsm_8k_train.json.gz", "rt", encoding="utf-8") as handle:
        rows = json.load(handle)
    for row in rows[300:900]:
        text = " ".join(str(value) for value in row.values())
        yield text, [(a, b, ("O", "person", "place", "organisation", "date")) for a, b in _capitals(text)]


LANGUAGES = (
    "German_Deutsch-Latin1", "French_Francais-Latin1", "Spanish-Latin1", "Italian-Latin1", "Dutch_Nederlands-Latin1",
    "Portuguese_Portugues-Latin1", "Polish-Latin2", "Swedish_Svenska-Latin1", "Danish_Dansk-Latin1",
    "Norwegian-Latin1", "Finnish_Suomi-Latin1", "Czech-Latin2", "Hungarian_Magyar-Latin2", "Turkish_Turkce-Turkish",
    "Romanian_Romana-Latin2", "Catalan-Latin1", "Croatian_Hrvatski-Latin2", "Indonesian-Latin1", "Afrikaans-Latin1",
)  # fmt: skip


def declarations(root: Path) -> Iterator[Example]:
    """The Universal Declaration of Human Rights: other languages, and nobody's name in them."""
    encodings = {"Latin1": "latin-1", "Latin2": "iso8859-2", "Turkish": "iso8859-9"}
    with zipfile.ZipFile(root / "nltk_misc/udhr.zip") as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        for language in LANGUAGES:
            if language in names:
                text = archive.read(names[language]).decode(encodings[language.rpartition("-")[2]], "replace")
                for sentence in re.split(r"(?<=[.?!;:])\s+|\n+", text):
                    if len(sentence) > 15:
                        yield sentence, [(m.start(), m.end(), ("O", "date")) for m in _NUMBER.finditer(sentence)]


def given_names(root: Path) -> list[str]:
    """Kantrowitz and Ross, Names Corpus, version 1.3 (1994)."""
    with zipfile.ZipFile(root / "nltk_misc/names.zip") as archive:
        return sorted({
            name.strip()
            for file in ("names/male.txt", "names/female.txt")
            for name in archive.read(file).decode("utf-8").split("\n")
            if name.strip()
        })  # fmt: skip


def plain_texts(root: Path) -> Iterator[str]:
    """General text with its case, to count words in."""
    for line in (root / "plain_text/c4_demo.jsonl").open(encoding="utf-8"):
        yield json.loads(line)["text"]
    yield (root / "plain_text/wiki_demo.txt").read_text(encoding="utf-8")
    for source in (sgd(root, 12), sums(root)):
        for text, _ in source:
            yield text
    for text, spans in channel(root):
        yield _without(text, spans)
    for text, _ in declarations(root):
        yield text
    with zipfile.ZipFile(root / "nltk_reviews/product_reviews_1.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".txt") and "README" not in name:
                yield archive.read(name).decode("latin-1")


def _without(text: str, spans: list[Span]) -> str:
    for start, end, _ in reversed(spans):
        text = text[:start] + " " + text[end:]
    return text
