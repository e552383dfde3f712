"""Contradicting answers to equal questions: found when they contradict, left alone when they only differ."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clean.test_clean_stage import DATASETS, clean, jsonl, row, split_records

from ownchat.clean.answers import disagreement, has_one_answer, one_slip
from ownchat.clean.contradictions import TAG, find_contradictions
from ownchat.config import load_config
from ownchat.data.ledger import read_ledger
from ownchat.data.records import SCHEMA, message, read_batches, record


@pytest.mark.parametrize(
    "first, second, what",
    [
        ("Delivery takes 3 days.", "Delivery takes five days.", "number"),
        ("A ticket costs $12.50 in the shop.", "A ticket costs $15 in the shop.", "price"),
        ("We are open from 9:00 to 17:00.", "We are open from 10:00 to 18:00.", "time"),
        ("The office closes on Friday.", "The office closes on Mondays.", "day"),
        ("Fill in the form at https://a.example/x.", "Fill in the form at https://a.example/y.", "link"),
        ("Write to the desk at help@a.example.", "Write to the desk at info@a.example.", "mail"),
        ("Yes, you can.", "No, that is not possible.", "yes / no"),
        ("You can return worn shoes.", "You can't return worn shoes.", "negation"),
        ("The form is required for visitors.", "The form is optional for visitors.", "opposites"),
        ("The capital of Australia is Canberra.", "The capital of Australia is Sydney.", "name"),
    ],
)
def test_what_contradicts(first, second, what):
    for pair in ((first, second), (second, first)):
        assert (disagreement(*pair) or "").partition(":")[0] == what


@pytest.mark.parametrize(
    "first, second",
    [
        ("Delivery takes 3 days.", "Delivery takes three days."),
        ("It costs $1,200.00 a month.", "It costs 1200 $ a month."),
        ("Delivery takes 3 days. Returns take 5 days.", "Returns take 5 days. Delivery takes 3 days."),
        ("Delivery takes 3 days.", "We send parcels on Monday and Tuesday."),
        ("No problem, you can.", "Yes, you can."),
        ("We have Earl Grey and Oolong.", "We have Lipton and Twinings."),
        ("Your order was sent on 3 May.", "Your order was sent on 5 May."),
        ("I found 3 hotels for you.", "I found 5 hotels for you."),
        ("Call [PHONE_1] for help with it.", "Call [PHONE_2] for help with it."),
        ("hello", "hi there"),
    ],
)
def test_what_only_differs(first, second):
    assert disagreement(first, second) is None


def test_labels():
    assert disagreement("card_arrival", "lost_card", labels=True) is None  # a word in common
    assert disagreement("card_arrival", "exchange_rate", labels=True) == "label: card_arrival / exchange_rate"
    assert disagreement("hello", "hi", labels=True) is None


@pytest.mark.parametrize(
    "question, answer",
    [
        ("How long does delivery take?", True),
        ("How do I reset my password?", True),
        ("Do you ship to France?", True),
        ("Where is my order?", False),
        ("What's the balance of my account?", False),
        ("I want to book a table", False),
        ("Write a poem about the sea?", False),
        ("What is the weather today?", False),
        ("How are you?", False),
        ("thanks a lot", False),
    ],
)
def test_questions_with_one_answer(question, answer):
    assert has_one_answer(question) is answer


def batch_of(*exchanges, times=()):
    rows = []
    for line, (question, answer) in enumerate(exchanges):
        time = times[line] if times else None
        turns = [message("system", "Be brief."), message("user", question), message("assistant", answer, time=time)]
        rows.append(record("conversation", file="f", format="jsonl", line=line, messages=turns))
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def found(*batches):
    count = sum(map(len, batches))
    pairs = find_contradictions(lambda: iter(batches), pa.array(range(count)).to_numpy()).pairs
    return [(pair.first, pair.second) for pair in pairs]


LONG = "How long does the delivery of a parcel take?"


def test_near_equal_questions():
    assert found(
        batch_of((LONG, "It takes 3 days in all."), ("Where do you deliver?", "It takes 4 days in all.")),
        batch_of(
            ("Hello, how long does the delivery of a parcel take please", "It takes 5 days in all."),
            ("How long does the delivry of a parcel take?", "It takes 7 days in all."),
            ("How long does the delivery of a letter take?", "It takes 9 days in all."),
        ),
    ) == [(0, 2), (0, 3), (2, 3)]


QUESTIONS = st.sampled_from([LONG, "When do you open?", "when do you opne?", "Is it free?", "", "é", "东京"])
ANSWERS = st.sampled_from(["Yes.", "No.", "It takes 3 days in all.", "It takes 4 days in all.", "", "Sure thing."])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(QUESTIONS, ANSWERS), min_size=1, max_size=12), st.integers(1, 11))
def test_as_comparing_all_pairs(exchanges, cut):
    from ownchat.clean.contradictions import _FILLERS

    fillers = set(_FILLERS.split())
    batch = batch_of(*exchanges)
    expected = []
    first_of: dict[tuple[str, str], int] = {}
    for index, exchange in enumerate(exchanges):
        first_of.setdefault(exchange, index)
    members = sorted(first_of.values())
    for place, one in enumerate(members):
        for other in members[place + 1 :]:
            (asked, said), (asked_too, said_too) = exchanges[one], exchanges[other]
            alike = has_one_answer(asked) and has_one_answer(asked_too) and one_slip(asked, asked_too, fillers)
            if alike and said and said_too and disagreement(said, said_too):
                expected.append((one, other))
    told = set(found(batch.slice(0, cut), batch.slice(cut)))
    assert told <= {
        (a, b) for a in range(len(exchanges)) for b in range(a + 1, len(exchanges))
        if disagreement(exchanges[a][1], exchanges[b][1])
    }  # fmt: skip
    texts = {frozenset((exchanges[a], exchanges[b])) for a, b in told}
    assert texts == {frozenset((exchanges[a], exchanges[b])) for a, b in expected}


def contrary(times):
    rows = [
        row(f"What does article {i} say about thing {i}?", f"The thing number {i} is said there.") for i in range(20)
    ]
    for answer, time in zip(("It takes 3 days in all.", "It takes 5 days in all."), times, strict=True):
        one = row(LONG, answer)
        one["messages"][1]["time"] = time
        rows.append(one)
    return rows


def test_the_stage_flags_both(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", contrary((None, None)))
    report = clean(tmp_path, source, "clean.contradictions=drop")  # nobody knows which one is older
    tagged = [one for name, rows in split_records(tmp_path).items() for one in rows if TAG in (one["tags"] or ())]
    assert len(tagged) == 2 and report.details["contradictions"]["pairs"] == 1
    assert report.details["contradictions"]["examples"][0]["answers"] == [
        "It takes 3 days in all.", "It takes 5 days in all.",
    ]  # fmt: skip
    events = [e for e in read_ledger(tmp_path / "2-clean").to_pylist() if e["rule"] == "contradiction"]
    assert {e["fate"] for e in events} == {"changed"} and tagged[0]["id"] in str(events)
    assert report.details["rules"]["row changed"]["contradiction"] == 2


def test_the_stage_drops_the_older_one(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", contrary(("2024-05-01T10:00:00Z", "2023-05-01T10:00:00Z")))
    report = clean(tmp_path, source, "clean.contradictions=drop")
    assert report.details["rules"]["row dropped"] == {"contradicted": 1}
    dropped = split_records(tmp_path)["dropped"]
    assert [one["messages"][1]["content"] for one in dropped] == ["It takes 5 days in all."]
    entry = next(e for e in read_ledger(tmp_path / "2-clean").to_pylist() if e["rule"] == "contradicted")
    assert entry["parent_ids"] != [entry["id"]] and "older" in entry["detail"]


def test_off_by_default(tmp_path):
    report = clean(tmp_path, jsonl(tmp_path / "a.jsonl", contrary((None, None))))
    assert report.details["contradictions"]["pairs"] == 0 and "row changed" not in report.details["rules"]


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared datasets are not here (set OWNCHAT_DATASETS)")
@pytest.mark.parametrize("name", ["sgd/dev", "chatterbot_english", "instruct_small/lima.json"])
def test_real_collections_are_left_alone(tmp_path, name):
    from ownchat.data import stage

    report = stage.run(load_config()[0], {"source": DATASETS / name}, tmp_path / "data")
    rows = pa.array(range(report.counts["records"])).to_numpy()
    assert len(find_contradictions(lambda: read_batches(tmp_path / "data", 1024), rows).pairs) <= 1


@pytest.mark.parametrize(
    "answers, years, kept",
    [
        (("3", "5", "3"), (2020, 2022, 2024), "3"),  # the first one stands for the last one: it was said in 2024
        (("3", "5", "5", "3"), (2024, 2022, 2023, 2020), "3"),
        (("3", "5", "3"), (2020, 2025, 2024), "5"),
    ],
)
def test_the_latest_answer_stays_when_it_was_given_before(tmp_path, answers, years, kept):
    rows = contrary((None, None))[:20]
    for number, (answer, year) in enumerate(zip(answers, years, strict=True)):
        one = row(LONG, f"It takes {answer} days in all.", group=f"customer {number}")
        one["messages"][1]["time"] = f"{year}-05-01T10:00:00Z"
        rows.append(one)
    clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows), "clean.contradictions=drop")
    records = split_records(tmp_path)
    dropped = records.pop("dropped")
    said = {one["messages"][1]["content"] for rows in records.values() for one in rows}
    assert {text for text in said if text.startswith("It takes")} == {f"It takes {kept} days in all."}
    assert len(dropped) == len(answers) - 1


@pytest.mark.parametrize(
    "first, second, apart",
    [
        ("We open the shop at 9 am.", "We open the shop at 09:00.", False),
        ("We open the shop at 9 a.m. sharp.", "We open the shop at 9.00 am sharp.", False),
        ("We close the shop at 5:00 sharp.", "We close the shop at 5 pm sharp.", False),
        ("We close the shop at 12 am.", "We close the shop at 00:00.", False),
        ("We open the shop at 9 am.", "We open the shop at 9 pm.", True),
        ("We open the shop at 09:00.", "We open the shop at 21:00.", True),
        ("The offer ends on 31/12/2024.", "The offer ends on 2024-12-31.", False),
        ("The offer ends on 31.12.24 at last.", "The offer ends on 12/31/2024 at last.", False),
        ("The offer ends on 03/04/2024.", "The offer ends on 2024-04-03.", False),
        ("The offer ends on 03/04/2024.", "The offer ends on 2024-03-04.", False),
        ("The offer ends on 30/12/2024.", "The offer ends on 2024-12-31.", True),
        ("The yearly fee is 0.500 percent.", "The yearly fee is 0.5 percent.", False),
        ("The yearly fee is 0.500 percent.", "The yearly fee is 500 percent.", True),
        ("The yearly fee is 1.500 percent.", "The yearly fee is 1.5 percent.", False),
        ("The yearly fee is $1,200.", "The yearly fee is 1200 dollars.", False),
        ("The yearly fee is $1,200,000.", "The yearly fee is $1,200.", True),
    ],
)
def test_values_are_compared_not_how_they_are_written(first, second, apart):
    for pair in ((first, second), (second, first)):
        assert (disagreement(*pair) is not None) is apart


def test_amounts_are_shown_as_they_are_read():
    assert disagreement("The yearly fee is $1,200.", "The yearly fee is $1,500.") == "price: 1200 / 1500"
    assert disagreement("The yearly fee is 0.500 %.", "The yearly fee is 5 %.") == "percent: 0.5 / 5"
