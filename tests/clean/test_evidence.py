"""What says that a difference is a slip: against a naive count, and single edits."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.evidence import NEW_WORD, Own, accidents, is_misspelt, joints


def own(one: str, other: str) -> Own:
    first, second = one.split(), other.split()
    return Own(set(first) - set(second), joints(first) - joints(second))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), min_size=2, max_size=30))
def test_bits_are_the_naive_ones(texts):
    one, other = (" ".join(text) for text in texts[:2])
    padded = [["", *text, ""] for text in texts]

    def uses(word):
        return max(1, sum(word in text for text in padded))

    def together(joint):
        return sum(any((text[k], text[k + 1]) == joint for k in range(len(text) - 1)) for text in padded)

    def bits(side):
        chance = [uses(a) * uses(b) / len(texts) for a, b in side.joints if together((a, b)) <= 1]
        return sum(max(0.0, math.log2(expected)) for expected in chance)

    sides = own(one, other), own(other, one)
    lone = [{word for word in side.words if uses(word) == 1} for side in sides]
    slips = sum(map(len, lone))  # words of one letter are misspelt ones of each other
    expected = max(map(bits, sides)) + NEW_WORD * min(3, slips)
    assert accidents([sides], texts) == [pytest.approx(expected)]


def test_a_slip_and_a_name():
    said = [f"please send the parcel to {name} tomorrow" for name in ("paris", "london", "lisbon", "oslo")]
    said += ["please sned the parcel to paris tomorrow"]
    pairs = [(own(said[0], said[4]), own(said[4], said[0])), (own(said[1], said[3]), own(said[3], said[1]))]
    slip, name = accidents(pairs, [text.split() for text in said])
    assert slip >= NEW_WORD > name


@settings(max_examples=50, deadline=None)
@given(st.text("abc", min_size=2, max_size=8), st.randoms())
def test_every_single_edit_is_a_misspelling(word, chance):
    place = chance.randrange(len(word) - 1)
    assert is_misspelt(word[:place] + word[place + 1 :], word)
    assert is_misspelt(word[:place] + "x" + word[place:], word)
    assert is_misspelt(word[:place] + "x" + word[place + 1 :], word)
    assert is_misspelt(word[:place] + word[place + 1] + word[place] + word[place + 2 :], word)
    assert not is_misspelt("xy" + word, word)


def test_no_pairs_no_bits():
    assert accidents([], [["a"]]) == []
    assert accidents([(own("a", "a"), own("a", "a"))], []) == [0.0]
