"""How common words are in general text, and which of them are on a list of names or places."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from zlib import crc32

import numpy as np
from tagger_data import given_names, plain_texts
from tagger_names import COUNTRIES, international, towns

from ownchat.clean.private.features import Lexicon


def build_lexicon(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of words and a code each: how common, how often with a lower-case letter, whether a given name."""
    lower, total = Counter[str](), Counter[str]()
    for text in plain_texts(root):
        for match in re.finditer(r"(?<![.?!] )(?<!\n)\b[^\W\d_]+", text):
            total[match[0].lower()] += 1
            lower[match[0].lower()] += match[0][0].islower()
    names = {name.lower() for name in given_names(root) + international(0)}
    families = {name.lower() for name in international(1)}
    places = {name.lower().removeprefix("the ") for name in [*COUNTRIES, *towns()]}
    codes: dict[int, int] = {}
    listed = {word for word in names | families | places if word.isalpha()}
    for word in sorted(set(total) | listed):
        count = total[word]
        if count < 2 and word not in listed:
            continue
        common = sum(count >= least for least in (2, 8, 40, 400))
        share = lower[word] / count if count else 0.5
        code = 1 + common * 4 + sum(share >= least for least in (0.15, 0.6, 0.95)) + 20 * (word in names)
        code += 40 * (word in places) + 80 * (word in families)
        codes[crc32(word.encode())] = code
    hashes = np.array(sorted(codes), np.uint32)
    return hashes, np.array([codes[hash] for hash in hashes.tolist()], np.uint8)


def is_common(lexicon: Lexicon, word: str) -> bool:
    """Written in lower case eight times or more, and most times, and on no list of names or places."""
    code = lexicon.code(word) - 1
    return 0 <= code < 20 and code % 4 >= 2 and code // 4 >= 2
