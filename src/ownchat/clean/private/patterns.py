"""Private data that has a form: addresses of the net, numbers with check digits, values after a telling word.

Every expression is bounded and begins at the start of a word, so that a text of ten megabytes of one character takes
ten times as long as one of one megabyte. To add one: an entry with its check, and lines in the tests' cases file.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ownchat.clean.private import checksums as check
from ownchat.clean.private.spans import Span

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?|januar|februar|märz|mai|juni|juli|oktober|dezember|janvier|février|mars|avril|juin"
    r"|juillet|août|septembre|octobre|novembre|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre"
    r"|octubre|noviembre|diciembre)"
)
_DATE = (
    rf"(?:\d{{1,2}}(?:st|nd|rd|th|\.)?[ -](?:of |de )?{_MONTH}\.?(?:(?: de)?,?[ -]\d{{4}})?"
    rf"|{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?|{_MONTH}\.?,? \d{{4}}"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))(?!\w)"
)
_TENS = "(?:ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty)"
_ONES = "(?:oh|one|two|three|four|five|six|seven|eight|nine)"
_DAY = (
    r"(?:(?:twenty|thirty)?[ \-]?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)|tenth|eleventh|twelfth"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teenth|twentieth|thirtieth|\d{1,2}(?:st|nd|rd|th)?)"
)
_SPOKEN_DATE = rf"(?:{_MONTH} (?:the )?{_DAY}|(?:the )?{_DAY}(?: of)? {_MONTH})"
_SPOKEN_YEAR = rf"(?:(?:nineteen|twenty)[ \-]{_TENS}(?:[ \-]{_ONES})?|two thousand(?: and)?(?: {_TENS})?(?: {_ONES})?)"
_IS = r"(?:\s{1,3}(?:is|are|was|ist|est|es|:|=|#|-)|\s{0,3}[:=#])?\s{0,3}[\"'(]?"
_NUMBER = r"(?:\s{0,2}(?:numbers?|nos?\.?|num\.?|nr\.?|id|code|ref(?:erence)?|#|№)){1,2}"
_VALUE = r"((?:[A-Z0-9]{1,12}[-/_.]){0,5}[A-Z0-9]{0,19}\d[A-Z0-9]{0,20}(?:[-/_][A-Z0-9]{1,12}){0,3})(?![A-Z0-9])"
_DIGITS = r"((?:\d[ \-]?){3,18}\d)(?!\w)"

_NANP = re.compile(r"\(?[2-9]\d\d\)?[ .\-]{1,2}\d{3}[ .\-]\d{4}")
# A date, a version, a sum with its thousands set off, two numbers of a sentence.
_NO_PHONE = re.compile(
    r"^\d{4}[ \-.]\d\d[ \-.]\d\d.{0,9}$|^\d{1,3}(?:\.\d{1,3}){2,3}$|^\d{1,3}(?:[ .]\d{3}){2,4}$|\. |\d \((?:19|20)\d\d"
    r"|^(?:19|20)\d\d ?[-–] ?(?:19|20)\d\d|\d\.\d+ |^\d{1,2}([./-])\d{1,2}\1(?:19|20)?\d\d$"
)
_REGIONS = ("US", "GB", "IN", "DE", "FR", "ES", "IT", "AU", "NL", "PL", "BR")


@lru_cache(maxsize=1 << 16)
def is_phone(text: str) -> bool:
    """Whether it is written as a phone number is, or valid in one of the larger countries (phonenumbers)."""
    digits = sum(map(str.isdigit, text))
    if not 7 <= digits <= 15 or len(set(text)) < 4 or _NO_PHONE.search(text):
        return False
    if text[0] == "+" or _NANP.fullmatch(text):
        return True
    if text.isdigit() and not ((len(text) == 11 and text[0] == "0") or text.startswith("00")):
        return False  # a bare number may be anything: the tagger looks at what stands around it
    import phonenumbers

    for region in _REGIONS:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(text, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def is_public_ip(text: str) -> bool:
    """An address that is somebody's: not this machine, nor a mask."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if len(text) == 7:  # four single digits: a version more often than not, and else a name server of everybody's
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or text.startswith("255."))


_NATIONAL = (
    check.is_de_tax_id, check.is_fr_nir, check.is_nl_bsn, check.is_be_national, check.is_pl_pesel, check.is_uk_nhs,
    check.is_se_personnummer, check.is_no_fodselsnummer, check.is_dk_cpr, check.is_br_cpf, check.is_aadhaar,
    check.is_cn_resident, check.is_au_tfn, check.is_ca_sin, check.is_tr_kimlik, check.is_za_id, check.is_kr_rrn,
    check.is_us_ssn, check.is_us_itin,
)  # fmt: skip


def is_national_id(text: str) -> bool:
    """Valid in some country: meant for numbers after a telling word."""
    return any(test(text) for test in _NATIONAL)


def is_long_id(text: str) -> bool:
    """Valid by a check strong enough for a number that stands alone: two check digits, or one of 97."""
    tests = (check.is_fr_nir, check.is_no_fodselsnummer, check.is_br_cpf, check.is_cn_resident, check.is_be_national)
    return any(test(text) for test in tests)


# Short words and units that stand beside numbers in sentences: "3 to 4 am", "10 h 30 m", "2 x 4 x 6".
_SHORT_WORDS = re.compile(
    r"am|an|and|any|apt|are|as|at|but|by|can|cm|day|did|do|eur|fl|for|ft|gb|get|gbp|go|got|had|has|he|her"
    r"|him|his|hrs|i|if|in|inr|is|it|its|kb|kg|km|lb|lbs|let|max|mb|me|mg|mi|min|ml|mm|my|new|no|not|nov"
    r"|now|of|off|oh|ok|on|one|or|our|out|oz|per|pm|see|set|she|sq|so|st|than|the|til|to|too|try|two|up|us"
    r"|usd|use|via|vs|was|we|who|x|yes|yet|you|run"
)
_UNITS = re.compile(r"[hmsdywvbcflgkp]")


def is_code_in_pieces(text: str) -> bool:
    """A code as it is spelled out in speech or typed with spaces: "a 4 g 4 f 3". Three runs at least, and no words."""
    runs = text.lower().split()
    letters = [run for run in runs if not run.isdigit()]
    if len(runs) < 3 or any(map(_SHORT_WORDS.fullmatch, letters)) or len(set(letters)) == 1:
        return False
    if len(letters) < 3 and all(map(_UNITS.fullmatch, letters)):
        return False
    return len(runs) > 3 or all(run != "a" and len(run) < 3 for run in letters)


@dataclass(frozen=True)
class Pattern:
    """One form. The span is the first group, or the match.

    ``needs``: one of these must stand in the lower-cased text; none: a digit, and only what is near to digits is
    looked at.
    """

    type: str
    name: str
    expression: re.Pattern[str]
    score: float
    needs: tuple[str, ...] = ()
    is_valid: Callable[[str], bool] | None = None
    heads: tuple[str, ...] = ()  # first three letters of the telling words that it begins with: it is tried only there


def _pattern(type: str, name: str, expression: str, score: float, is_valid: Callable[[str], bool] | None = None,
             *, needs: tuple[str, ...] = (), heads: str = "", case: bool = False) -> Pattern:  # fmt: skip
    return Pattern(
        type, name, re.compile(expression, 0 if case else re.IGNORECASE), score, needs, is_valid, tuple(heads.split())
    )


_PASSWORD = ("pass", "pwd", "pin", "contraseña", "kennwort", "senha")
_REFERENCE = (
    "act app bes boo cas cla cli com con cus doc emp fac fil fre inv iti kun loy mem mrn ord pat ped pnr pol rec res"
    " ser shi stu sub tic tra use vin"
)
PATTERNS: tuple[Pattern, ...] = (
    _pattern("email", "e-mail",
             r"(?<![\w.+%\-])[\w.+%\-]{1,64}@(?:[\w\-]{1,63}\.){1,6}[a-z]{2,24}(?![\w\-])",
             0.99, needs=("@",)),
    _pattern("email", "e-mail in words",
             r"(?<![\w.])(?:[\w\-]{1,30} dot ){0,2}[\w.\-]{1,40} ?(?: at |\(at\)|\[at\]) ?(?!(?:the|a|my|our"
             r"|this|that)\b)[\w\-]{2,40} ?(?: dot |\(dot\)|\[dot\]) ?(?:com|net|org|edu|gov|io|de|uk|fr|in)\b",
             0.95, needs=(" at ", "(at)", "[at]")),
    _pattern("url", "URL with identity",
             r"(?<!\w)(?:https?://)?(?:[\w\-]{1,40}\.){0,3}(?:facebook\.com|instagram\.com|twitter\.com|x\.com"
             r"|tiktok\.com|t\.me|linkedin\.com/in|github\.com|gitlab\.com|reddit\.com/u(?:ser)?"
             r"|youtube\.com/@?|medium\.com/@|wa\.me|vk\.com)/[\w.@\-]{2,60}",
             0.9, needs=("/",)),
    _pattern("url", "URL with identity",
             r"(?<!\w)https?://[^\s/?#@<>\"]{1,200}(?:/[^\s?#<>\"]{0,400})?[?&#][^\s<>\"]{0,300}?(?:user|uid"
             r"|email|e-mail|mail|name|token|session|sid|auth|key|account|customer"
             r"|phone)[\w\-]{0,12}=[^\s<>\"]{1,500}",
             0.9, needs=("=",)),
    _pattern("url", "URL with identity",
             r"(?<!\w)https?://[^\s/]{1,120}/(?:~|users?/|u/|profiles?/|people/|members?/)[\w.@%\-]{2,80}",
             0.85, needs=("/",)),
    _pattern("username", "handle", r"(?<![\w@/.\-])@[a-z_][\w]{2,30}(?![\w@]|\.[a-z])", 0.7, needs=("@",)),
    _pattern("username", "user name after a word",
             r"\b(?:user ?name|user ?id|login|screen name|nick(?:name)?|benutzername|nom d'utilisateur|usuario)"
             r"(?:\s{0,2}(?:is|:|=)\s{0,3}|\s)[\"'`]?((?=[\w.\-]{0,30}[\d_.])[a-z][\w.\-]{2,40}\w)",
             0.85, needs=("user", "login", "name", "usuario", "nick"), heads="ben log nic nom scr use usu"),
    _pattern("ip", "IPv4",
             r"(?<![\w.\-])(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?![\w]"
             r"|\.\d)",
             0.9, is_public_ip),
    _pattern("ip", "IPv6",
             r"(?<![\w:.])(?:[0-9a-f]{1,4}:){1,7}(?::|[0-9a-f]{1,4}|(?::[0-9a-f]{1,4}){1,6})(?![\w:])",
             0.95, is_public_ip, needs=(":",)),
    _pattern("ip", "MAC address", r"(?<![\w:\-])(?:[0-9a-f]{2}[:\-]){5}[0-9a-f]{2}(?![\w:\-])", 0.95, needs=(":", "-")),
    _pattern("card", "card", r"(?<![\w.+\-])[2-6](?:[ \-]?\d){12,18}(?![\w]|\.\d)", 0.97, check.is_card),
    _pattern("iban", "IBAN",
             r"(?<!\w)[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)",
             0.99, check.is_iban),
    _pattern("bank_account", "routing number",
             r"\b(?:routing|aba|rtn|transit)" + _NUMBER + r"?" + _IS + r"(\d{9})(?!\w)",
             0.97, check.is_routing_number, heads="aba rou rtn tra"),
    _pattern("bank_account", "BIC",
             r"\b(?:bic|swift)(?:[ /\-]?(?:bic|swift|code)){0,2}" + _IS
             + r"((?-i:[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?))(?!\w)",
             0.85, needs=("bic", "swift"), heads="bic swi"),
    _pattern("bank_account", "account after a word",
             r"\b(?:a/c|acct?\.?|account|konto|compte|cuenta|iban|sort code)(?:" + _NUMBER + r"|nummer)?" + _IS
             + _DIGITS,
             0.85, heads="a acc com cue iba kon sor"),
    _pattern("national_id", "US SSN",
             r"(?<![\w\-.])(?:\d{3}-\d\d-\d{4}|\d{3} \d\d \d{4})(?![\w\-])",
             0.9, lambda text: check.is_us_ssn(text) or check.is_us_itin(text)),
    _pattern("national_id", "UK NINO", r"(?<!\w)[a-z]{2} ?\d\d ?\d\d ?\d\d ?[a-d](?!\w)", 0.95, check.is_uk_nino),
    _pattern("national_id", "ES DNI", r"(?<!\w)(?:[XYZ][ \-]?)?\d{7,8}[ \-]?[A-Z](?!\w)", 0.9, check.is_es_dni),
    _pattern("national_id", "IT codice fiscale",
             r"(?<!\w)[A-Z]{6}\d\d[A-Z]\d\d[A-Z][0-9L-V]{3}[A-Z](?!\w)",
             0.99, check.is_it_codice_fiscale),
    _pattern("national_id", "FI personal code", r"(?<!\w)\d{6}[-+A-FU-Y]\d{3}[0-9A-Y](?!\w)", 0.95, check.is_fi_hetu),
    _pattern("national_id", "number with two check digits",
             r"(?<![\w.+\-/])\d(?:[ .\-]?\d){10,17}X?(?![\w]|[.\-/]\d)",
             0.85, is_long_id),
    _pattern("national_id", "national id after a word",
             r"\b(?:ssn|social security|social insurance|national insurance|national id(?:entity)?|identity"
             r"|personal|citizen|resident|nhs|sin|nin|nino|aadha?ar|pesel|bsn|cpf|rrn|dni|nie|nir|cpr|tfn"
             r"|steuer-?id|personnummer|fødselsnummer|kimlik|id card)(?:" + _NUMBER + r"|nummer|number)?" + _IS
             + _DIGITS,
             0.85, lambda text: is_national_id(text) or len(check.strip(text)) in (4, 8, 9, 10, 11, 12, 13),
             heads="aad bsn cit cpf cpr dni fød id ide kim nat nhs nie nin nir per pes res rrn sin soc ssn ste tfn"),
    _pattern("tax_id", "EU VAT number",
             r"(?<!\w)(?:ATU|BE|BG|CY|CZ|DE|DK|EE|EL|ES|FI|FR|HR|HU|IE|IT|LT|LU|LV|MT|NL|PL|PT|RO|SE|SI"
             r"|SK) ?[A-Z0-9]{0,2}\d[\d .]{5,12}(?:B\d\d|[A-Z])?(?!\w)",
             0.85, check.is_eu_vat, case=True),
    _pattern("tax_id", "tax number after a word",
             r"\b(?:tax(?:payer)?|vat|ein|tin|itin|gst(?:in)?|abn|nip|cnpj|partita iva|ust-?id(?:nr)?|pan)"
             r"(?: id(?:entification)?| card)?(?:" + _NUMBER + r")?" + _IS + _VALUE,
             0.85, lambda text: sum(map(str.isdigit, text)) > 3,
             heads="abn cnp ein gst iti nip pan par tax tin ust vat"),
    _pattern("tax_id", "BR CNPJ", r"(?<!\w)\d\d\.?\d{3}\.?\d{3}/\d{4}-\d\d(?!\w)", 0.97, check.is_br_cnpj),
    _pattern("passport", "passport after a word",
             r"\bpass(?:port|eport|aporte|nummer)(?:\s{0,2}card)?(?:" + _NUMBER + r")?" + _IS
             + r"([A-Z]{0,3}[ \-]?\d[A-Z0-9]{4,10})(?!\w)",
             0.9, heads="pas"),
    _pattern("driving_licence", "driving licence after a word",
             r"\b(?:driv(?:er'?s?|er’s|ing) licen[cs]e|dl|dvla|führerschein|permis de conduire)(?:" + _NUMBER
             + r"|nummer)?" + _IS
             + r"([A-Z]{0,5}[ \-]?(?:\d[\-\s]?){2,12}[A-Z0-9]{0,6}(?:-[A-Z0-9]{1,8}){0,4})(?!\w)",
             0.9, lambda text: sum(map(str.isdigit, text)) > 4, heads="dl dri dvl füh per"),
    _pattern("phone", "phone",
             r"(?<![\w.$€£#/\-])(?:\+|00|\()?\d[\d ().\-]{5,20}\d(?:\s?(?:x|ext\.?|extension)\s?\d{1,6})?"
             r"(?![\w%€$]|[.,/\-]\d|\s{0,2}=)",
             0.9, is_phone),
    _pattern("phone", "phone after a word",
             r"\b(?:phone|mobile|cell|tel|telephone|fax|whatsapp|handy|telefon|teléfono|téléphone)(?:" + _NUMBER
             + r")?\.?" + _IS + r"(\+?\(?\d[\d ().\-]{4,20}\d)(?!\w)",
             0.9, lambda text: 6 <= len(check.strip(text)) <= 15, heads="cel fax han mob pho tel wha"),
    _pattern("phone", "phone after a call",
             r"\b(?:call|ring|reach|dial|text)(?: (?:me|us|him|her|them|back))?(?: (?:at|on|under))?:? "
             r"(\+?\(?\d[\d ().\-]{4,20}\d)(?!\w)",
             0.8, lambda text: 6 <= len(check.strip(text)) <= 15, heads="cal dia rea rin tex"),
    _pattern("date_of_birth", "date of birth",
             r"\b(?:born|dob|d\.o\.b\.?|birth ?(?:day|date)?|date of birth|geboren|geb\.|née?|nacid[oa]"
             r"|geburtsdatum|date de naissance)(?:\s{1,3}in(?:\s[^\W\d_]{2,20},?){1,3})?"
             r"(?:\s{1,3}(?:on|in|is|the|am|le|el|was)){0,2}\s{0,3}[:="
             r"(]?\s{0,3}(" + _DATE + r"|(?:19|20)\d\d(?!\w))",
             0.95, heads="bir bor d dat dob geb nac né née"),
    _pattern("date_of_birth", "date of birth in words",
             r"\b(?:born|birth ?day|date of birth|dob)(?:\s{1,3}(?:on|in|is|the|was|it's)){0,3}\s{1,3}("
             + _SPOKEN_DATE + r"(?:[ ,]{1,2}(?:of )?" + _SPOKEN_YEAR + r")?)(?!\w)",
             0.95, needs=("born", "birth", "dob"), heads="bir bor dat dob"),
    _pattern("password", "password after a word",
             r"\b(?:password|passwort|passwd|pass ?word|pwd|passphrase|passcode|pin(?: code)?|contraseña"
             r"|mot de passe|kennwort|senha)(?:\s{1,2}(?:is|was|to|for)){0,2}\s{0,3}(?::|=|=>"
             r"|\s)\s{0,3}[\"'`“]?([^\s\"'`”,]{4,64})",
             0.85, lambda text: looks_random(text), needs=_PASSWORD, heads="con ken mot pas pin pwd sen"),
    _pattern("password", "password after a colon",
             r"\b(?:password|passwort|passwd|pwd|passcode|contraseña|mot de passe|kennwort)\s?[:=]\s?[\"'`“]?"
             r"([^\s\"'`”,]{3,64})",
             0.8, lambda text: any(map(str.isalnum, text)) and not text.endswith(("?", ":")), needs=_PASSWORD,
             heads="con ken mot pas pwd"),
    _pattern("reference", "number of an order or case",
             r"\b(?:order|booking|reservation|confirmation|policy|claim|ticket|case|invoice|customer|client"
             r"|member(?:ship)?|tracking|patient|record|mrn|employee|student|user|loyalty|frequent flyer"
             r"|itinerary|pnr|shipment|serial|contract|subscription|file|docket|application|applications|appeal"
             r"|action|complaint|vin|bestell|kunden|rechnungs|commande|pedido|factura)(?:" + _NUMBER + r"|nummer)"
             + _IS + _VALUE,
             0.85,
             heads=_REFERENCE),
    _pattern("reference", "number of an order or case",
             r"\b(?:order|booking|reservation|confirmation|policy|claim|ticket|case|invoice|tracking)\s{0,2}"
             r"(?:#|:)\s{0,2}" + _VALUE,
             0.8,
             heads=_REFERENCE),
    _pattern("reference", "file number",
             r"(?<!\w)(?:nos?|nr|n°|№|case|file|cause|docket|application|appeal|petition|suit|writ)s?\.?\s{1,2}"
             r"(?:nos?\.?\s)?((?:[A-Z]{1,6}[ .\-:]{1,2}){0,3}\d{1,6}[A-Z]?/(?:\d{2,6}/)?\d{2,4})(?![\w/])",
             0.9),
    _pattern("reference", "file number", r"(?<!\w)\d{1,2}:\d\d-[a-z]{2}-\d{3,6}(?:-[A-Z]{2,4}){0,2}(?!\w)", 0.95),
    _pattern("reference", "code in pieces",
             r"(?<!\w)(?:[a-z]{1,3} \d{1,4}|\d{1,4} [a-z]{1,3})(?: (?:[a-z]{1,3} \d{1,4}|\d{1,4} [a-z]{1,3})){0,3}"
             r"(?: [a-z]{1,3}| \d{1,4})?(?!\w)",
             0.7, is_code_in_pieces),
    _pattern("reference", "tracking number", r"(?<!\w)1Z[0-9A-Z]{16}(?!\w)", 0.97),
    _pattern("address", "UK postcode",
             r"(?<!\w)(?:GIR 0AA|[A-PR-UWYZ][A-HK-Y]?\d[\dA-HJKPSTUW]? \d[ABD-HJLNP-UW-Z]{2})(?!\w)",
             0.85, case=True),
    _pattern("address", "street address",
             r"(?<![\w.,/$])\d{1,5}[A-D]? (?:[NSEW]\.? )?(?:[A-Z][\w'’.\-]{1,20} ){1,4}(?:Street|St|Road|Rd"
             r"|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Way|Close|Crescent|Terrace|Highway|Hwy"
             r"|Parkway|Pkwy|Square|Sq)\b\.?(?:,? (?:Apt|Suite|Ste|Unit|Flat|#)\.? ?\w{1,6})?",
             0.9, case=True),
    _pattern("address", "P.O. box", r"\bP\.? ?O\.? ?Box \d{1,7}(?!\w)", 0.9),
    _pattern("date", "date", r"(?<![\w/.\-])" + _DATE, 0.9),
)  # fmt: skip


def looks_random(text: str) -> bool:
    """A digit or a mark inside, or capitals after small letters: hardly a word of a sentence."""
    word = text.rstrip(".,;:!?)")
    return len(word) > 3 and (
        any(map(str.isdigit, word))
        or any(mark in word for mark in "@#$%^&*_!")
        or word[1:] not in (word[1:].lower(), word[1:].upper())
    )


def find_in_all(texts: Sequence[str], find: Callable[[str], Iterable[Span]]) -> list[list[Span]]:
    """What ``find`` finds in each text, by one call on all of them: most texts are shorter than the call.

    Between two texts stands what no form reaches across.
    """
    sizes = np.fromiter(map(len, texts), np.int64, len(texts)) + len(_SEPARATOR)
    starts = np.cumsum(sizes) - sizes
    found = list(find(_SEPARATOR.join(texts)))
    result: list[list[Span]] = [[] for _ in texts]
    owners = np.searchsorted(starts, np.array([span.start for span in found], np.int64), side="right") - 1
    for span, owner in zip(found, owners.tolist(), strict=True):
        offset = int(starts[owner])
        end = min(span.end - offset, len(texts[owner]))
        result[owner].append(span._replace(start=span.start - offset, end=end))
    return result


_SEPARATOR = "\n\x00\n"  # no white space, so that expressions that skip white space stop


def find_patterns(text: str, types: frozenset[str]) -> Iterator[Span]:
    """What has the form of one of ``types`` and passes its check; finds may overlap."""
    lowered, windows = text.lower(), list(digit_windows(text))
    everywhere = [(0, len(text))]
    tried: dict[str, list[Pattern]] = {}  # head -> patterns, for those that look near digits only
    tried_everywhere: dict[str, list[Pattern]] = {}
    for pattern in PATTERNS:
        if pattern.type not in types or (pattern.needs and not any(word in lowered for word in pattern.needs)):
            continue
        for head in pattern.heads:
            (tried_everywhere if pattern.needs else tried).setdefault(head, []).append(pattern)
        if not pattern.heads:
            for start, end in everywhere if pattern.needs else windows:
                yield from _valid(pattern, pattern.expression.finditer(text, start, end))
    for heads, ranges in ((tried, windows), (tried_everywhere, everywhere)):
        for start, end in ranges if heads else ():
            for word in _WORD.finditer(text, start, end):
                for pattern in heads.get(word[1].lower(), ()):
                    if match := pattern.expression.match(text, word.start(), end):
                        yield from _valid(pattern, (match,))


def _valid(pattern: Pattern, matches: Iterable[re.Match[str]]) -> Iterator[Span]:
    group = min(pattern.expression.groups, 1)
    for match in matches:
        value = match[group]
        if value and (pattern.is_valid is None or pattern.is_valid(value)):
            yield Span(*match.span(group), pattern.type, pattern.score, pattern.name)


_WORD = re.compile(r"(?<!\w)([^\W\d_]{1,3})")
_NEAR_DIGITS = re.compile(r"\d")
BEFORE, AFTER = 120, 60  # characters around a digit: the longest telling words stand before


def digit_windows(text: str) -> Iterator[tuple[int, int]]:
    """The parts of a text that are near to a digit, in order and apart; they end at white space where it is near.

    >>> list(digit_windows("x" * 500 + "7"))
    [(380, 501)]
    """
    start, end, position = -1, 0, 0
    while match := _NEAR_DIGITS.search(text, position):
        at = match.start()
        if start >= 0 and at - BEFORE > end:
            yield start, end
            start = -1
        if start < 0:
            start = max(at - BEFORE, 0)
        end = _word_end(text, at + AFTER)
        position = max(at + 1, at + AFTER // 2)
    if start >= 0:
        yield start, end


def _word_end(text: str, at: int) -> int:
    if at >= len(text):
        return len(text)
    ends = [end for end in (text.find(" ", at, at + 100), text.find("\n", at, at + 100)) if end >= 0]
    return min(ends, default=at)
