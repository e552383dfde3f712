"""The owner's policy over answers: masking, holding back, counting; the same however an answer is cut into pieces."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ownchat.clean.private.redaction import redact
from ownchat.config import Config
from ownchat.errors import ConfigError, DataError
from ownchat.generate.engine import Delta, FinishReason, Usage
from ownchat.generate.policy import REFUSAL, WARN_AFTER, Filter, Policy

USAGE = Usage(7, 9)
LETTER = (
    "Dear Ms Anna Berg, thank you for writing. We sent it to 12 Oak Street, Springfield, IL 62701. Your card\n"
    "4111 1111 1111 1111 was charged. Write to anna.berg@example.com or call +44 20 7946 0958. The key is "
    "sk-proj-abcdEFGH1234ijklMNOP5678qrstUVWX9012. Berg is a name. "
    + "The weather is fine and nothing more is to be said of it " * 7
    + "until 12.12. 東京までの送料はいくらですか。次の文です。Yours, the shop"
)
VALUES = (
    "Anna Berg",
    "4111 1111 1111 1111",
    "anna.berg@example.com",
    "+44 20 7946 0958",
    "sk-proj-abcdEFGH1234ijklMNOP5678qrstUVWX9012",
)


def pieces(parts: Sequence[str], finish: FinishReason | None = "stop") -> Iterator[Delta]:
    """An engine's deltas, one id for each piece, and an end token without text."""
    for number, part in enumerate(parts):
        yield Delta(part, (number,), (-float(number),), top=(((number, -float(number)),),))
    yield Delta("", (999,), (-999.0,), finish, None if finish is None else USAGE, (((999, -999.0),),))


def joined(filter: Filter, parts: Sequence[str], finish: FinishReason | None = "stop") -> tuple[str, list[Delta]]:
    found = list(filter.filtered(pieces(parts, finish)))
    return "".join(delta.text for delta in found), found


def test_an_answer_is_the_same_wherever_it_is_cut() -> None:
    policy = Policy.of({"private": True, "deny": ["nothing at all", "/inv-[0-9]+/"]})
    whole, found = joined(Filter(policy), [LETTER])
    assert found[-1].finish_reason == "stop" and found[-1].usage == USAGE
    assert "Yours, the shop" in whole and "fine and nothing more" in whole
    for value in VALUES:
        assert value not in whole
    for at in range(0, len(LETTER), 41):
        assert joined(Filter(policy), [LETTER[:at], LETTER[at:]])[0] == whole, at
    for size in (1, 3, 50):
        parts = [LETTER[at : at + size] for at in range(0, len(LETTER), size)]
        assert joined(Filter(policy), parts)[0] == whole, size
    abuse = "It is so. Well (you know). She said: you are an idiot! Come back."
    assert {joined(Filter(Policy(toxicity=True)), [abuse[:at], abuse[at:]])[0] for at in range(0, len(abuse), 9)} == {
        f"It is so. Well (you know). \n\n{REFUSAL}"
    }


def test_values_are_masked_as_the_redactor_masks_them() -> None:
    text = "Mail anna@example.com. Card 4111 1111 1111 1111. Again: anna@example.com, and bob@example.org."
    assert joined(Filter(Policy(private=True)), list(text))[0] == redact(text).text
    counts = Filter(Policy(private=True))
    joined(counts, list(text))
    assert counts.counts == {"seen": 1, "deny": 0, "toxicity": 0, "out_of_scope": 0, "masked": 4}


def test_a_telling_word_in_the_sentence_before_counts() -> None:
    text = "Your password is:\nTr0ub4dor&3xyz\nMy account number is\n31926819 and so on. Good bye."
    shown, _ = joined(Filter(Policy(private=True)), list(text))
    assert "Tr0ub" not in shown and "31926819" not in shown and shown.endswith("and so on. Good bye.")


@pytest.mark.parametrize("value", VALUES[1:])
@pytest.mark.parametrize("finish", ["stop", "length", None])
@pytest.mark.parametrize(("filler", "befores"), [("It is so. ", (30,)), ("so it is ", (0, 278, 284))])
def test_no_half_of_a_value_leaks(
    value: str, filler: str, befores: tuple[int, ...], finish: FinishReason | None
) -> None:
    """Wherever it stands against the borders of sentences and of the window, and wherever the answer is cut."""
    for before in befores:
        start = (filler * 40)[:before] + "It is: "
        text = f"{start}{value} and so on it goes. Then more is said."
        cuts = range(len(start) + 1, len(start) + len(value) + 7, 3)
        for end in [len(text)] if finish == "stop" else cuts:
            shown, found = joined(Filter(Policy(private=True)), list(text[:end]), finish)
            assert not any(value[n : n + 6] in shown for n in range(len(value) - 5)), (before, end, shown)
            out = {id for delta in found for id in delta.ids}
            inside = set(range(len(start), min(end, len(start) + len(value))))
            assert len(out & inside) < 6, (before, end)  # "anna" alone may be any word
            assert end - len(start) < 6 or not out & inside, (before, end)
            assert filler in shown or before == 0


@pytest.mark.parametrize("value", VALUES[1:])
def test_no_half_of_a_value_leaks_where_no_white_space_stands_before_it(value: str) -> None:
    for before in (0, 75, 95):
        start = ("そうです。" * 40)[:before]
        for end in range(len(start) + 1, len(start) + len(value) + 1):
            shown, _ = joined(Filter(Policy(private=True)), list((start + value)[:end]), "length")
            assert not any(value[n : n + 6] in shown for n in range(len(value) - 5)), (before, end, shown)


def test_a_stop_text_does_not_draw_out_half_a_value() -> None:
    """Whoever asks may choose where it stops."""
    deltas = [*pieces(["The card is 4111 1111 ", "11"], None)][:-1]
    by_stop_text = [*deltas, Delta("", (9,), (-1.0,), "stop", USAGE, stopped=True)]
    shown = "".join(one.text for one in Filter(Policy(private=True)).filtered(iter(by_stop_text)))
    assert shown == "The card is "
    assert joined(Filter(Policy(private=True)), ["It costs ", "5.99"])[0] == "It costs 5.99"  # its own end


def test_what_is_private_is_what_cleaning_calls_so() -> None:
    asked = {"private_types": ["email"], "private_deny": ["Bluebird"], "private_allow": ["info@example.com"]}
    config = Config(clean=asked, generate={"policy": {"private": True}})
    text = "Bluebird is out. Write to info@example.com or anna@example.com, card 4111 1111 1111 1111."
    shown, _ = joined(Filter.of(config, None), list(text))
    assert "Bluebird" not in shown and "anna@" not in shown and "info@" in shown and "4111 1111" in shown
    with pytest.raises(ConfigError, match="deny"):
        Filter.of(Config(clean={"private_deny": ["/(/"]}, generate={"policy": {"private": True}}), None)


def test_a_private_key_of_many_lines_is_one_value() -> None:
    body = "\n".join("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ" + chr(65 + n) * 14 for n in range(26))
    text = f"Here it is:\n-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\nKeep it safe. Good bye."
    shown, _ = joined(Filter(Policy(private=True)), [text[at : at + 9] for at in range(0, len(text), 9)])
    assert "MII" not in shown and "AAAA" not in shown and shown.endswith("Keep it safe. Good bye.")
    cut, _ = joined(Filter(Policy(private=True)), [text[at : at + 9] for at in range(0, 900, 9)], "length")
    assert "MII" not in cut and "AAAA" not in cut


def test_ids_and_logprobs_of_what_is_withheld_stay_behind() -> None:
    parts = ["Write", " to ", "anna", "@", "example.com", " soon", ".", " Then", " wait", "."]
    _, found = joined(Filter(Policy(private=True)), parts)
    ids = [id for delta in found for id in delta.ids]
    assert not {2, 3, 4} & set(ids) and {0, 7, 8, 9, 999} <= set(ids)
    assert 1 not in ids  # an engine may have held back the beginning of the value, and it is a part of this token
    assert [number for delta in found for number in delta.logprobs] == [-float(id) for id in ids]
    assert [id for delta in found for alternatives in delta.top for id, _ in alternatives] == ids
    clean = ["Nothing", " to ", "hide", ". ", "", "So", " all", " of it", " goes."]
    _, found = joined(Filter(Policy(private=True)), clean)
    assert [id for delta in found for id in delta.ids] == [*range(len(clean)), 999]


def test_denied_words_across_tokens_end_the_answer() -> None:
    parts = ["We like it", ". Buy at Ac", "me", " Wor", "ks tod", "ay. More text."]
    filter = Filter(Policy.of({"deny": ["acme works"], "refusal": "No names here."}))
    text, found = joined(filter, parts)
    assert text == "We like it. \n\nNo names here."
    assert found[-1].finish_reason == "content_filter" and filter.counts["deny"] == 1
    assert {id for delta in found for id in delta.ids} <= {0}
    assert "".join(delta.text for delta in filter.filtered(pieces(["Acme and the works"]))) == "Acme and the works"


def test_an_expression_is_safe_and_crosses_pieces() -> None:
    filter = Filter(Policy.of({"deny": ["/(a+)+inv-[0-9]{3}/"]}))
    assert joined(filter, ["a" * 50] * 40)[1][-1].finish_reason == "stop"  # RE2: no catastrophe
    assert joined(filter, ["aaa", "inv-", "1", "2", "3 is it"])[0] == REFUSAL


def test_abuse_is_withheld_by_the_sentence() -> None:
    filter = Filter(Policy(toxicity=True))
    text, found = joined(filter, list("The shop opens at nine. You are an idiot. Come back soon."))
    assert text == f"The shop opens at nine. \n\n{REFUSAL}" and found[-1].finish_reason == "content_filter"
    assert joined(filter, ["How do I kill ", "a process?"])[0] == "How do I kill a process?"
    assert filter.counts["toxicity"] == 1 and filter.counts["seen"] == 2


def test_the_engine_is_stopped_and_its_usage_told() -> None:
    cancel = threading.Event()

    def engine() -> Iterator[Delta]:
        for number in range(1000):
            if cancel.is_set():
                yield Delta("", (), (), "cancelled", Usage(5, number))
                return
            yield Delta("You are an idiot. ", (number,), (-1.0,))

    found = list(Filter(Policy(toxicity=True)).filtered(engine(), cancel))
    assert found[-1].finish_reason == "content_filter" and found[-1].usage == Usage(5, 1)
    endless = engine()
    cancel.clear()
    assert list(Filter(Policy(toxicity=True)).filtered(endless))[-1].text == REFUSAL
    assert next(endless, None) is None  # closed: nothing is computed any more


def test_out_of_scope_questions_are_refused_without_the_model() -> None:
    filter = Filter(Policy.of({"out_of_scope": 0.5}), scope=lambda question: 1.0 if "parcel" in question else 0.0)
    assert filter.question([{"role": "user", "content": "Where is my parcel?"}]) is None
    history = [{"role": "user", "content": "Where is my parcel?"}, {"role": "assistant", "content": "Here."}]
    assert filter.question([*history, {"role": "user", "content": "Who won?"}]) == REFUSAL
    assert filter.question([{"role": "system", "content": "Be brief."}]) is None
    assert filter.counts["out_of_scope"] == 1 and filter.counts["seen"] == 1
    with pytest.raises(ConfigError, match="out_of_scope"):
        Filter(Policy(out_of_scope=0.5))
    with pytest.raises(DataError, match="2-clean"):
        Filter.of(Config(generate={"policy": {"out_of_scope": 0.5}}), Path("/nowhere"))


def test_a_filter_that_blocks_everything_says_so() -> None:
    said: list[str] = []
    filter = Filter(Policy.of({"deny": ["/[a-z]/"]}), warn=said.append)
    for _ in range(WARN_AFTER + 5):
        joined(filter, ["some", " words"])
    assert len(said) == 1 and "deny 10" in said[0] and "generate.policy" in said[0]
    mixed = Filter(Policy.of({"deny": ["bad"]}), warn=said.append)
    joined(mixed, ["good"])
    for _ in range(WARN_AFTER):
        joined(mixed, ["bad"])
    assert len(said) == 1


def test_one_filter_serves_many_threads() -> None:
    filter = Filter(Policy(private=True))
    texts = [f"Write to person{n}@example.com, says Anna Berg of number {n}. Bye." for n in range(8)]
    expected = [joined(Filter(Policy(private=True)), [text])[0] for text in texts]
    found: dict[int, set[str]] = {}

    def work(number: int) -> None:
        found[number] = {joined(filter, list(texts[number]))[0] for _ in range(5)}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == [{text} for text in expected]
    assert filter.counts["seen"] == 40 and filter.counts["masked"] >= 40


def test_an_answer_without_spaces_that_is_cut_is_not_all_withheld() -> None:
    text = "東京までの送料はいくらですかと聞かれましたがそれは荷物の大きさと重さによります"
    assert joined(Filter(Policy(private=True)), list(text), "length")[0] == text
    assert joined(Filter(Policy(private=True)), ["It is ", "x" * 40], "length")[0] == "It is "  # may be half a key


def test_without_a_policy_nothing_is_touched() -> None:
    filter, given = Filter(Policy()), list(pieces(["a", "b@example.com"]))
    assert list(filter.filtered(iter(given))) == given and filter.counts["seen"] == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"private": "yes"}, "generate.policy.private"),
        ({"toxicity": 1}, "generate.policy.toxicity"),
        ({"deny": "acme"}, "generate.policy.deny"),
        ({"deny": ["ok", 5]}, "entry 2"),
        ({"deny": ["ok", " "]}, "entry 2 is empty"),
        ({"deny": ["/(/"]}, "broken"),
        ({"deny": ["/(?=a)b/"]}, "look-ahead"),
        ({"deny": ["/.*/"]}, "every"),
        ({"out_of_scope": 1.5}, "generate.policy.out_of_scope"),
        ({"out_of_scope": True}, "generate.policy.out_of_scope"),
        ({"refusal": ""}, "generate.policy.refusal"),
        ({"refusal": 5}, "generate.policy.refusal"),
        ({"disclosure": "x" * 3000}, "characters"),
        ({"privat": True}, 'did you mean "private"'),
    ],
)
def test_settings_that_cannot_be_meant_are_named(values: dict, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy.of(values)
    assert said in str(caught.value)


def test_switches_are_read_as_yaml_and_json_write_them() -> None:
    assert Policy.of({}) == Policy()
    assert Policy.of({"disclosure": False}).discloses is False
    assert Policy.of({"disclosure": "off"}).discloses is False
    assert Policy.of({"disclosure": True}).disclosure is None
    assert Policy.of({"disclosure": " A machine. "}).disclosure == "A machine."
    assert Policy.of({"private": "on", "out_of_scope": "off"}) == Policy(private=True)
