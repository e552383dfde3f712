"""Check digits: numbers that their issuers publish as examples pass, and with one digit changed do not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.private import checksums

# Specimens from the issuers' own pages and standards; none is a person's.
VALID = [
    (checksums.is_card, "4111 1111 1111 1111"), (checksums.is_card, "378282246310005"),
    (checksums.is_card, "5555-5555-5555-4444"), (checksums.is_iban, "GB29 NWBK 6016 1331 9268 19"),
    (checksums.is_iban, "DE89 3704 0044 0532 0130 00"), (checksums.is_iban, "FR14 2004 1010 0505 0001 3M02 606"),
    (checksums.is_routing_number, "021000021"), (checksums.is_de_tax_id, "86095742719"),
    (checksums.is_fr_nir, "2 55 08 14 168 025 38"), (checksums.is_it_codice_fiscale, "RSSMRA85T10A562S"),
    (checksums.is_es_dni, "12345678Z"), (checksums.is_es_dni, "X-1234567-L"), (checksums.is_nl_bsn, "111222333"),
    (checksums.is_be_national, "85.07.30-033 28"), (checksums.is_pl_pesel, "44051401359"),
    (checksums.is_pl_nip, "PL 526-10-40-828"), (checksums.is_uk_nhs, "943 476 5919"),
    (checksums.is_se_personnummer, "811218-9876"), (checksums.is_fi_hetu, "131052-308T"),
    (checksums.is_br_cpf, "111.444.777-35"), (checksums.is_br_cnpj, "11.222.333/0001-81"),
    (checksums.is_aadhaar, "2341 2341 2346"), (checksums.is_cn_resident, "11010519491231002X"),
    (checksums.is_au_tfn, "123 456 782"), (checksums.is_ca_sin, "130 692 544"), (checksums.is_tr_kimlik, "10000000146"),
    (checksums.is_za_id, "8001015009087"), (checksums.is_eu_vat, "DE136695976"), (checksums.is_eu_vat, "FR83404833048"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "number"), VALID, ids=lambda value: getattr(value, "__name__", value))
def test_specimens_pass_and_fail_with_a_digit_changed(check, number):
    assert check(number)
    place = max(i for i, character in enumerate(number) if character.isdigit())
    wrong = [number[:place] + digit + number[place + 1 :] for digit in "0123456789" if digit != number[place]]
    assert not any(map(check, wrong))


def test_what_was_never_issued():
    assert checksums.is_us_ssn("521-44-9382")
    assert not any(
        map(checksums.is_us_ssn, ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000"])
    )
    assert checksums.is_uk_nino("AB 12 34 56 C") and not checksums.is_uk_nino("GB123456A")
    assert not checksums.is_card("4444444444444444"[:13]) and not checksums.is_iban("ZZ89370400440532013000")


CHECKS = [check for name, check in vars(checksums).items() if name.startswith("is_")]


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.text(max_size=24), st.text("0123456789 -.XZ", max_size=24), st.text("٣४5²", max_size=12)))
def test_any_text_is_answered(text):
    for check in CHECKS:
        assert check(text) in (True, False)


@settings(max_examples=50, deadline=None)
@given(st.text("0123456789", min_size=12, max_size=18))
def test_exactly_one_last_digit_passes_luhn(digits):
    assert sum(checksums.is_luhn(digits + last) for last in "0123456789") == 1
