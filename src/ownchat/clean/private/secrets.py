"""Keys, tokens and passwords: formats that their issuers document, and long random values after a telling word.

The formats are public facts of each service. A text is looked at only where a format's fixed letters stand in it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from ownchat.clean.private.patterns import looks_random

_END = r"(?![A-Za-z0-9_\-])"
_START = r"(?<![A-Za-z0-9_\-])"

# name, letters that always stand in it, expression
FORMATS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (name, letters, re.compile(_START + expression + _END))
    for name, letters, expression in (
        ("aws key id", "AKIA", r"AKIA[0-9A-Z]{16}"),
        ("aws session key id", "ASIA", r"ASIA[0-9A-Z]{16}"),
        ("github token", "ghp_", r"ghp_[0-9A-Za-z]{36}"),
        ("github oauth token", "gho_", r"gho_[0-9A-Za-z]{36}"),
        ("github app token", "ghs_", r"ghs_[0-9A-Za-z]{36}"),
        ("github user token", "ghu_", r"ghu_[0-9A-Za-z]{36}"),
        ("github refresh token", "ghr_", r"ghr_[0-9A-Za-z]{36,80}"),
        ("github fine-grained token", "github_pat_", r"github_pat_[0-9A-Za-z_]{36,100}"),
        ("gitlab token", "glpat-", r"glpat-[0-9A-Za-z_\-]{20,50}"),
        ("slack token", "xox", r"xox[abeoprs]-[0-9A-Za-z\-]{10,200}"),
        ("slack app token", "xapp-", r"xapp-\d-[0-9A-Za-z\-]{10,200}"),
        ("slack webhook", "hooks.slack.com", r"hooks\.slack\.com/services/[0-9A-Za-z/]{20,80}"),
        ("discord webhook", "/api/webhooks/", r"discord(?:app)?\.com/api/webhooks/\d{15,25}/[0-9A-Za-z_\-]{40,100}"),
        ("stripe key", "k_live_", r"(?:sk|rk|pk)_live_[0-9A-Za-z]{16,250}"),
        ("stripe test key", "k_test_", r"(?:sk|rk|pk)_test_[0-9A-Za-z]{16,250}"),
        ("stripe webhook secret", "whsec_", r"whsec_[0-9A-Za-z+/=]{24,100}"),
        ("openai key", "sk-", r"sk-(?:proj-|svcacct-|admin-)?[0-9A-Za-z_\-]{32,200}"),
        ("anthropic key", "sk-ant-", r"sk-ant-[0-9A-Za-z_\-]{20,200}"),
        ("google key", "AIza", r"AIza[0-9A-Za-z_\-]{35}"),
        ("google oauth secret", "GOCSPX-", r"GOCSPX-[0-9A-Za-z_\-]{28}"),
        ("google oauth token", "ya29.", r"ya29\.[0-9A-Za-z_\-]{30,400}"),
        ("hugging face token", "hf_", r"hf_[0-9A-Za-z]{30,50}"),
        ("pypi token", "pypi-", r"pypi-[0-9A-Za-z_\-]{50,250}"),
        ("npm token", "npm_", r"npm_[0-9A-Za-z]{36}"),
        ("docker token", "dckr_pat_", r"dckr_pat_[0-9A-Za-z_\-]{24,40}"),
        ("digitalocean token", "do", r"do[opr]_v1_[0-9a-f]{64}"),
        ("sendgrid key", "SG.", r"SG\.[0-9A-Za-z_\-]{16,32}\.[0-9A-Za-z_\-]{16,64}"),
        ("mailgun key", "key-", r"key-[0-9a-f]{32}"),
        ("mailchimp key", "-us", r"[0-9a-f]{32}-us\d{1,2}"),
        ("twilio key", "SK", r"SK[0-9a-f]{32}"),
        ("twilio account", "AC", r"AC[0-9a-f]{32}"),
        ("square token", "sq0", r"sq0[a-z]{3}-[0-9A-Za-z_\-]{22,60}"),
        ("shopify token", "shp", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
        ("databricks token", "dapi", r"dapi[0-9a-f]{32}(?:-\d)?"),
        ("grafana token", "gl", r"gl(?:sa|c)_[0-9A-Za-z_=+/]{32,200}"),
        ("linear key", "lin_api_", r"lin_api_[0-9A-Za-z]{40}"),
        ("notion token", "ntn_", r"ntn_[0-9A-Za-z]{40,60}"),
        ("new relic key", "NRAK-", r"NRAK-[0-9A-Z]{27}"),
        ("postman key", "PMAK-", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
        ("airtable token", "pat", r"pat[0-9A-Za-z]{14}\.[0-9a-f]{64}"),
        ("telegram bot token", ":AA", r"\d{8,10}:AA[0-9A-Za-z_\-]{33}"),
        ("vault token", "hvs.", r"hvs\.[0-9A-Za-z_\-]{24,200}"),
        ("json web token", "eyJ", r"eyJ[0-9A-Za-z_\-]{10,2000}\.eyJ[0-9A-Za-z_\-]{10,4000}\.[0-9A-Za-z_\-]{0,1000}"),
        ("azure storage key", "AccountKey=", r"AccountKey=[0-9A-Za-z+/]{60,100}={0,2}"),
    )
)
_URL_PASSWORD = re.compile(r"://[^\s:/@]{1,64}:([^\s:/@]{3,128})@")
_BEARER = re.compile(r"\bbearer\s{1,3}([0-9a-z._~+/\-]{20,2000}=*)", re.IGNORECASE)
_NAMED = re.compile(
    r"(?:api[ _\-]?key|access[ _\-]?key|secret(?:[ _\-]?key)?|client[ _\-]?secret|auth[ _\-]?token|access[ _\-]?token"
    r"|token|private[ _\-]?key)[\"']?\s{0,3}(?:is|:|=|=>|:=)?\s{0,3}[\"'`]?([0-9A-Za-z_\-+/=.~]{16,256})",
    re.IGNORECASE,
)
_WORD_FOR = r"(?:pass(?:word|wd|phrase|code|wort)|pwd|kennwort|contraseña|mot de passe|senha)"
_IN_CODE = re.compile(  # DB_PASSWORD = "...", smtp.password: '...', "dbPassword": "...", DB_PASSWORD=...
    _WORD_FOR + r"\w{0,20}[\"']?\s{0,3}(?:=>|:=|[:=])\s{0,3}(?:\"([^\"\n]{3,128})\"|'([^'\n]{3,128})'"
    r"|`([^`\n]{3,128})`)|_(?-i:PASS(?:WORD|WD|PHRASE)?|PWD)[\"']?\s{0,3}[:=]\s{0,3}([^\s\"'`(){}$<>,;]{3,128})",
    re.IGNORECASE,
)
_LINE = re.compile(  # a label and its value: a phrase of some words too
    r"^[ \t>*|\-]{0,8}" + _WORD_FOR + r"[ \t]?:[ \t]{0,3}(?!(?:must|should|please|the|your|my|i|is|it|reset|required"
    r"|incorrect|invalid|wrong|not|for|to|cannot|can)\b)([^\s\"'`](?:\S{0,40}[ \t]){0,8}\S{1,64})[ \t]{0,20}(?=\n|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_PAIR = re.compile(  # login: jsmith / Welcome1
    r"(?<!\w)(?:log ?in|sign ?in|credentials?|creds?|user(?: ?name)?|account|zugang|anmeldung|identifiants?)\s{0,2}[:=]"
    r"\s{0,3}([\w.@+\-]{2,64})\s{0,2}[/|]\s{0,2}([^\s\"'`,;]{4,64})",
    re.IGNORECASE,
)
LEAST_ENTROPY = 3.2  # bits a character: English words lie below, random hexadecimal at 3.5 to 4
_BLOCK_START = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters in bits.

    >>> entropy("aaaa"), entropy("abcd")
    (0.0, 2.0)
    """
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values()) + 0.0


def find_secrets(text: str) -> Iterator[tuple[int, int, str, float, str]]:
    """``(start, end, type, score, detector)`` of each key or token; they may overlap."""
    for name, letters, expression in FORMATS:
        if letters in text:
            for match in expression.finditer(text):
                yield *match.span(), "secret", 0.99, name
    if "-----BEGIN " in text:
        end = 0
        for match in _BLOCK_START.finditer(text):
            if match.start() >= end:
                foot = text.find("-----END ", match.end())
                foot = -1 if foot < 0 else text.find("-----", foot + 9)
                end = len(text) if foot < 0 else foot + 5
                yield match.start(), end, "secret", 0.99, "private key"
    if "://" in text and "@" in text:
        for match in _URL_PASSWORD.finditer(text):
            yield *match.span(1), "password", 0.95, "password in a URL"
    for expression, name in ((_BEARER, "bearer token"), (_NAMED, "named secret")):
        for match in expression.finditer(text):
            value = match[1]
            if any(map(str.isdigit, value)) and entropy(value) >= LEAST_ENTROPY:
                yield *match.span(1), "secret", 0.9, name
    yield from _find_passwords(text)


def _find_passwords(text: str) -> Iterator[tuple[int, int, str, float, str]]:
    """Passwords in code, after a label, or behind a user name."""
    lowered = text.lower()
    if any(word in lowered for word in ("pass", "pwd", "kennwort", "contraseña", "senha")):
        for match in _IN_CODE.finditer(text):
            yield *match.span(match.lastindex or 0), "password", 0.9, "password in code"
        for match in _LINE.finditer(text):
            if not match[1].endswith(("?", ":")):
                yield *match.span(1), "password", 0.86, "password on a line"
    if "/" in text or "|" in text:
        for match in _PAIR.finditer(text):
            if looks_random(match[2]):
                yield *match.span(1), "username", 0.86, "user name before a password"
                yield *match.span(2), "password", 0.86, "password after a user name"
