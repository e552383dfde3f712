"""Check digits of cards, accounts and national numbers. Each function takes the number with or without its marks.

They tell a number of a kind from any other of its length; they do not tell that it was ever issued. Sources are named
at each function; weights and moduli are facts of the issuing bodies.
"""

from __future__ import annotations

import re

_NOT_ALPHANUMERIC = re.compile(r"[^0-9A-Za-z]")
# Length of an IBAN by country (SWIFT IBAN registry).
_IBAN_LENGTHS = {
    length: countries.split()
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
}  # fmt: skip


def strip(number: str) -> str:
    """Letters and digits only, in upper case.

    >>> strip("de 12-34")
    'DE1234'
    """
    return _NOT_ALPHANUMERIC.sub("", number).upper()


def is_luhn(number: str) -> bool:
    """ISO/IEC 7812-1, annex B: cards, Canadian SIN, Swedish personal numbers.

    >>> is_luhn("4111 1111 1111 1111"), is_luhn("4111 1111 1111 1112")
    (True, False)
    """
    digits = strip(number)
    if not digits.isdecimal() or not digits.isascii():
        return False
    total = sum(int(digit) for digit in digits[-1::-2]) + sum(
        sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]
    )
    return total % 10 == 0


def is_card(number: str) -> bool:
    """A payment card: 13 to 19 digits, a first digit that networks use, Luhn; not one digit over and over."""
    digits = strip(number)
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and len(set(digits)) > 1 and is_luhn(digits)


def is_iban(number: str) -> bool:
    """ISO 13616: country's length, and mod 97 is 1.

    >>> is_iban("DE89 3704 0044 0532 0130 00"), is_iban("DE88 3704 0044 0532 0130 00")
    (True, False)
    """
    text = strip(number)
    if text[:2] not in _IBAN_LENGTHS.get(len(text), ()) or not text.isascii() or not text[2:4].isdigit():
        return False
    return int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4])) % 97 == 1


def is_routing_number(number: str) -> bool:
    """ABA routing transit number: weights 3, 7, 1."""
    return _weighted(strip(number), (3, 7, 1) * 3, 10) and strip(number)[:2] != "00"


def is_us_ssn(number: str) -> bool:
    """US social security number as issued: no area 000, 666 or 900 and above, no group 00, no serial 0000."""
    digits = strip(number)
    if len(digits) != 9 or not digits.isdecimal():
        return False
    return digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def is_us_itin(number: str) -> bool:
    """US individual taxpayer number: 9xx, groups 50-65, 70-88, 90-92, 94-99."""
    digits = strip(number)
    if len(digits) != 9 or not digits.isdecimal() or digits[0] != "9":
        return False
    group = int(digits[3:5])
    return 50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or 94 <= group <= 99


def is_de_tax_id(number: str) -> bool:
    """German Steuer-Identifikationsnummer: 11 digits, ISO 7064 mod 11, 10."""
    digits = strip(number)
    return len(digits) == 11 and digits.isdecimal() and digits[0] != "0" and _mod_11_10(digits)


def is_de_vat(number: str) -> bool:
    """German USt-IdNr. without its prefix: nine digits, ISO 7064 mod 11, 10."""
    digits = strip(number).removeprefix("DE")
    return len(digits) == 9 and digits.isdecimal() and _mod_11_10(digits)


def is_fr_nir(number: str) -> bool:
    """French social security number (NIR): 13 characters and 97 minus their value mod 97; 2A and 2B are Corsica."""
    text = strip(number).replace("2A", "19").replace("2B", "18")
    return len(text) == 15 and text.isdecimal() and int(text[13:]) == 97 - int(text[:13]) % 97


def is_it_codice_fiscale(number: str) -> bool:
    """Italian codice fiscale: last letter from values of odd and even places (D.M. 23.12.1976)."""
    text = strip(number)
    if not re.fullmatch(r"[A-Z]{6}\d\d[A-Z]\d\d[A-Z][0-9LMNP-V]{3}[A-Z]", text):
        return False
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
    values = [int(letter) if letter.isdigit() else ord(letter) - 65 for letter in text[:15]]
    total = sum(odd[value] if place % 2 == 0 else value for place, value in enumerate(values))
    return chr(65 + total % 26) == text[15]


def is_es_dni(number: str) -> bool:
    """Spanish DNI or NIE: letter at number mod 23."""
    text = strip(number)
    if not re.fullmatch(r"[XYZ\d]\d{7}[A-Z]", text):
        return False
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(text[:8].translate(str.maketrans("XYZ", "012"))) % 23] == text[8]


def is_nl_bsn(number: str) -> bool:
    """Dutch BSN: the eleven test, 9 8 7 6 5 4 3 2 -1."""
    digits = strip(number)
    return len(digits) == 9 and digits != "000000000" and _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1), 11)


def is_be_national(number: str) -> bool:
    """Belgian national number: 97 minus the first nine digits mod 97, with a 2 before them for those born from 2000."""
    digits = strip(number)
    if len(digits) != 11 or not digits.isdecimal():
        return False
    return int(digits[9:]) in (97 - int(digits[:9]) % 97, 97 - int("2" + digits[:9]) % 97)


def is_pl_pesel(number: str) -> bool:
    """Polish PESEL: weights 1 3 7 9, and a month that there is."""
    digits = strip(number)
    if len(digits) != 11 or not digits.isdecimal() or not 1 <= int(digits[2:4]) % 20 <= 12:
        return False
    return _weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10)


def is_pl_nip(number: str) -> bool:
    """Polish tax number NIP: weights 6 5 7 2 3 4 5 6 7, mod 11."""
    digits = strip(number).removeprefix("PL")
    return len(digits) == 10 and _weighted(digits, (6, 5, 7, 2, 3, 4, 5, 6, 7, -1), 11)


def is_uk_nhs(number: str) -> bool:
    """NHS number: weights 10 to 2, mod 11."""
    digits = strip(number)
    return len(digits) == 10 and _weighted(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1), 11)


def is_uk_nino(number: str) -> bool:
    """UK national insurance number: prefixes that are issued, a suffix from A to D; there is no check digit."""
    text = strip(number)
    return bool(re.fullmatch(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]", text))


def is_se_personnummer(number: str) -> bool:
    """Swedish personal number: YYMMDD and four digits, Luhn over the last ten."""
    digits = strip(number)[-10:]
    return len(digits) == 10 and _is_day(digits[4:6], digits[2:4]) and is_luhn(digits)


def is_fi_hetu(number: str) -> bool:
    """Finnish personal code: DDMMYY, century sign, three digits, and a sign from the value mod 31."""
    match = re.fullmatch(r"(\d{6})[-+A-FU-Y](\d{3})([0-9A-Y])", number.strip().upper())
    if not match or not _is_day(match[1][:2], match[1][2:4]):
        return False
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(match[1] + match[2]) % 31] == match[3]


def is_no_fodselsnummer(number: str) -> bool:
    """Norwegian birth number: two check digits, mod 11."""
    digits = strip(number)
    return (
        len(digits) == 11
        and _is_day(digits[:2], digits[2:4])
        and _weighted(digits[:10], (3, 7, 6, 1, 8, 9, 4, 5, 2, 1), 11)
        and _weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), 11)
    )


def is_dk_cpr(number: str) -> bool:
    """Danish CPR number: a day of the calendar and four digits (the check digit was given up in 2007)."""
    digits = strip(number)
    return len(digits) == 10 and _is_day(digits[:2], digits[2:4])


def is_br_cpf(number: str) -> bool:
    """Brazilian CPF: two check digits, mod 11."""
    digits = strip(number)
    return len(digits) == 11 and len(set(digits)) > 1 and _brazil(digits, 9) and _brazil(digits, 10)


def is_br_cnpj(number: str) -> bool:
    """Brazilian CNPJ: two check digits, weights that start again after 9."""
    digits = strip(number)
    return len(digits) == 14 and len(set(digits)) > 1 and _brazil(digits, 12, wrap=8) and _brazil(digits, 13, wrap=8)


def is_aadhaar(number: str) -> bool:
    """Indian Aadhaar: twelve digits, the first from 2, Verhoeff's scheme (1969)."""
    digits = strip(number)
    if len(digits) != 12 or not digits.isdecimal() or digits[0] in "01":
        return False
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _verhoeff_sum(check, _verhoeff_permuted(int(digit), place % 8))
    return check == 0


def is_cn_resident(number: str) -> bool:
    """Chinese resident identity number: ISO 7064 mod 11-2."""
    text = strip(number)
    if not re.fullmatch(r"[1-9]\d{16}[\dX]", text) or not _is_day(text[12:14], text[10:12]):
        return False
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17]


def is_au_tfn(number: str) -> bool:
    """Australian tax file number: weights 1 4 3 7 5 8 6 9 10, mod 11."""
    digits = strip(number)
    return len(digits) == 9 and _weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10), 11)


def is_ca_sin(number: str) -> bool:
    """Canadian social insurance number: nine digits, Luhn; none starts with 0 or 8."""
    digits = strip(number)
    return len(digits) == 9 and digits[0] not in "08" and is_luhn(digits)


def is_tr_kimlik(number: str) -> bool:
    """Turkish identity number: two check digits, mod 10."""
    digits = strip(number)
    if len(digits) != 11 or not digits.isdecimal() or digits[0] == "0":
        return False
    values = [int(digit) for digit in digits]
    tenth = (7 * sum(values[0:9:2]) - sum(values[1:8:2])) % 10
    return values[9] == tenth and values[10] == sum(values[:10]) % 10


def is_za_id(number: str) -> bool:
    """South African identity number: YYMMDD, seven digits, Luhn."""
    digits = strip(number)
    return len(digits) == 13 and _is_day(digits[4:6], digits[2:4]) and is_luhn(digits)


def is_kr_rrn(number: str) -> bool:
    """Korean resident registration number: weights 2 to 9, 2 to 5, mod 11."""
    digits = strip(number)
    if len(digits) != 13 or not digits.isdecimal() or not _is_day(digits[4:6], digits[2:4]):
        return False
    total = sum(
        int(digit) * weight for digit, weight in zip(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=False)
    )
    return (11 - total % 11) % 10 == int(digits[12])


def is_eu_vat(number: str) -> bool:
    """EU VAT number with its prefix: the country's form, and the check digit for DE, IT, PL, ES, FR and BE."""
    text = strip(number)
    form = _VAT_FORMS.get(text[:2])
    if form is None or not re.fullmatch(form, text[2:]):
        return False
    body = text[2:]
    match text[:2]:
        case "DE":
            return is_de_vat(body)
        case "IT":
            return is_luhn(body)
        case "PL":
            return is_pl_nip(body)
        case "BE":
            return int(body[8:]) == 97 - int(body[:8]) % 97
        case "FR" if body.isdecimal():
            return int(body[:2]) == (12 + 3 * (int(body[2:]) % 97)) % 97
    return True


_VAT_FORMS = {
    "AT": r"U\d{8}", "BE": r"[01]\d{9}", "BG": r"\d{9,10}", "CY": r"\d{8}[A-Z]", "CZ": r"\d{8,10}", "DE": r"\d{9}",
    "DK": r"\d{8}", "EE": r"\d{9}", "EL": r"\d{9}", "ES": r"[A-Z0-9]\d{7}[A-Z0-9]", "FI": r"\d{8}",
    "FR": r"[A-HJ-NP-Z0-9]{2}\d{9}", "HR": r"\d{11}", "HU": r"\d{8}", "IE": r"\d{7}[A-W][A-IW]?", "IT": r"\d{11}",
    "LT": r"\d{9}(\d{3})?", "LU": r"\d{8}", "LV": r"\d{11}", "MT": r"\d{8}", "NL": r"\d{9}B\d{2}", "PL": r"\d{10}",
    "PT": r"\d{9}", "RO": r"\d{2,10}", "SE": r"\d{12}", "SI": r"\d{8}", "SK": r"\d{10}",
}  # fmt: skip


def _weighted(digits: str, weights: tuple[int, ...], modulus: int) -> bool:
    if len(digits) != len(weights) or not digits.isdecimal():
        return False
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % modulus == 0


def _mod_11_10(digits: str) -> bool:
    product = 10
    for digit in digits[:-1]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def _is_day(day: str, month: str) -> bool:
    return (day + month).isdecimal() and 1 <= int(day) <= 31 and 1 <= int(month) <= 12


def _brazil(digits: str, place: int, *, wrap: int = 99) -> bool:
    if not digits.isdecimal():
        return False
    total = sum(int(digit) * (2 + index % wrap) for index, digit in enumerate(reversed(digits[:place])))
    return (11 - total % 11) % 11 % 10 == int(digits[place])


def _verhoeff_sum(a: int, b: int) -> int:
    """The dihedral group of order ten."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


def _verhoeff_permuted(digit: int, times: int) -> int:
    for _ in range(times):
        digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
    return digit
