"""Rated and labelled texts: reviews as pairs and as preferences, marked opinions, pros and cons, intents."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.datasets.reviews import rate, scale

GOOD = "It works very well and I would buy it again."
BAD = "It broke after two days and nobody answered."


def table(rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


AMAZON = [
    {"asin": "B1", "reviewerName": "jo", "helpful": [1, 2], "reviewText": GOOD, "overall": 5.0, "summary": "Good one"},
    {"asin": "B1", "reviewerName": "al", "helpful": [0, 0], "reviewText": BAD, "overall": 1.0, "summary": "Broken"},
    {
        "asin": "B2",
        "reviewerName": "bo",
        "helpful": [0, 0],
        "reviewText": "It is what it is, I think.",
        "overall": 3.0,
        "summary": "Ok",
    },
    {
        "asin": "B3",
        "reviewerName": "cy",
        "helpful": [0, 0],
        "reviewText": "I like it a lot, really.",
        "overall": 5.0,
        "summary": "Yes",
    },
]


def test_reviews_as_pairs(understand):
    read = understand("\n".join(map(json.dumps, AMAZON)))
    assert [record["messages"][-1]["content"] for record in read.records] == [row["reviewText"] for row in AMAZON]
    assert [record["rating"] for record in read.records] == [5, 1, 3, 5]
    request = read.records[1]["messages"][0]["content"]
    assert '"Broken"' in request
    assert "1 of 5 stars" in request
    assert "reviews, as pairs" in read.reading.understood


def test_reviews_as_preferences(understand):
    read = understand("\n".join(map(json.dumps, AMAZON)), reviews="preferences")
    pair, alone = read.records
    assert [turn["content"] for turn in pair["chosen"] + pair["rejected"]] == [GOOD, BAD]
    assert pair["rating"] == 4
    assert (alone["desirable"], alone["messages"][-1]["content"]) == (True, AMAZON[3]["reviewText"])
    assert read.rules == {"the worse one of a pair": 1, "neither good nor bad": 1}
    assert {record["kind"] for record in read.records} == {"preference"}


def test_reviews_in_a_table(understand):
    rows = [["product", "stars", "review"], ["lamp", "4", GOOD], ["lamp", "2 stars", BAD], ["desk", "n/a", GOOD]]
    rows += [["desk", "3", f"{GOOD} {n}"] for n in range(9)]
    read = understand(table(rows), "a.csv")
    assert len(read.records) == 12
    assert "lamp with 4 of 5 stars" in read.records[0]["messages"][0]["content"]
    assert [record["rating"] for record in read.records[:3]] == [4, 2, None]


def test_rated_answers(understand):
    rows = [
        ["question", "answer", "rating"],
        ["Why?", "Because.", "5"],
        ["Why?", "No.", "1"],
        ["How?", "So.", "4"],
        ["How?", "Oh.", "4"],
    ]
    read = understand(table(rows), "a.csv")
    assert [record["rating"] for record in read.records] == [5, 1, 4, 4]
    assert {record["kind"] for record in read.records} == {"conversation"}
    read = understand(table(rows), "a.csv", reviews="preferences")
    (record,) = read.records
    assert (record["chosen"][0]["content"], record["rejected"][0]["content"]) == ("Because.", "No.")
    assert read.rules == {"the worse one of a pair": 1, "no answer is better": 2}


@pytest.mark.parametrize(
    "least, most, ends",
    [
        (1, 5, (1, 5)),
        (2, 4, (1, 5)),
        (0, 5, (0, 5)),
        (1, 10, (1, 10)),
        (0, 1, (0, 1)),
        (10, 95, (0, 100)),
        (1, 1, (1, 5)),
        (-3, 2, (-3, 3)),
    ],
)
def test_scales(least, most, ends):
    assert scale(least, most) == ends


@given(value=st.text(max_size=12))
@settings(max_examples=50, deadline=None)
def test_ratings_are_numbers_or_nothing(value):
    assert rate(value) is None or abs(rate(value)) < 1e300


_RATED = st.lists(
    st.tuples(
        st.sampled_from(["B1", "B2", ""]), st.sampled_from(["1", "2", "3", "5", "", "x"]), st.text("ab ", max_size=9)
    ),
    max_size=12,
)


@given(rows=_RATED, mode=st.sampled_from(["pairs", "preferences"]))
@settings(max_examples=40, deadline=None)
def test_every_review_has_one_fate(understand, rows, mode):
    rows = [["asin", "rating", "review"], *[["B1", "4", GOOD] for _ in range(40)], *rows]
    read = understand(table(rows), "a.csv", reviews=mode)
    assert read.rows == len(rows) - 1


# -------------------------------------------------------------------------------------------------- marked opinions

MARKED = """*******************
* Annotated by: somebody
* Product name: Lamp X
*******************

[t]a bright lamp
light[+3], price[-1]##it is bright , but it costs a lot .
##i have had it for a year .
[t]
switch[-2][u]##the switch broke .
cord[-3]##and the cord too .
[t]nothing said
"""


def test_marked_opinions(understand):
    read = understand(MARKED, "Lamp_X.txt")
    assert read.format == "annotated reviews"
    first, second = read.records
    assert first["messages"][1]["content"] == "it is bright , but it costs a lot .\ni have had it for a year ."
    assert [first["rating"], second["rating"]] == [1, -2.5]
    assert 'Lamp X with the title "a bright lamp" and a positive opinion' in first["messages"][0]["content"]
    assert read.rules == {"empty": 1}
    assert first["source"]["line"] == 6
    pair = understand(MARKED, "Lamp_X.txt", reviews="preferences").records[0]
    assert (pair["kind"], pair["rating"]) == ("preference", 3.5)


def test_pros_and_cons(understand):
    read = understand(
        "<Pros>Light, cheap</Pros>\n" * 3
        + "<Cons>Breaks &amp; bends</Cons>\n<Pros></Pros>\nodd\n"
        + "<Cons>Slow</Cons>\n" * 5,
        "a.txt",
    )
    assert read.format == "pros and cons"
    assert len(read.records) == 9
    assert read.records[0]["messages"][-1]["content"] == "Light, cheap"
    assert read.rules == {"no answer": 1, "not of the file's form": 1}


# --------------------------------------------------------------------------------------------------- labelled texts


@pytest.mark.parametrize("labels", ["label", "category", "Intent"])
def test_labelled_texts(understand, labels):
    rows = [["text", labels]] + [[f"Where is my parcel number {n}?", f"label_{n // 60}"] for n in range(300)]
    read = understand(table(rows), "a.csv")
    assert len(read.records) == 300
    system, user, answer = (turn["content"] for turn in read.records[-1]["messages"])
    assert system.endswith("one of: label_0, label_1, label_2, label_3, label_4")  # also those after the first rows
    assert (user, answer) == ("Where is my parcel number 299?", "label_4")
    assert "labelled texts" in read.reading.understood


def test_lists_of_pairs(understand):
    pairs = [[f"where is parcel number {n}", "parcel"] for n in range(6)]
    content = json.dumps(
        {"oos_train": [[f"what is the weather {n}", "oos"] for n in range(5)], "train": [*pairs, ["odd"]]}
    )
    read = understand(content, "a.json")
    assert len(read.records) == 11
    assert read.records[0]["messages"][0]["content"].endswith("one of: oos, parcel")
    assert read.rules == {"invalid JSON": 1}


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": f"Some prose of five words {n}", "label": str(n % 2)} for n in range(9)],  # numbers say nothing
        [{"text": f"Some prose of five words {n}", "tag": f"t{n}"} for n in range(9)],  # labels that never recur
    ],
)
def test_texts_without_a_label_stay_documents(understand, rows):
    read = understand("\n".join(map(json.dumps, rows)))
    assert {record["kind"] for record in read.records} == {"document"}


def test_two_versions_of_a_text_are_no_question_and_answer(understand):
    texts = [
        (f"Anna {n} lives in the small house there.", f"Berta {n} lives in the small house there.") for n in range(5)
    ]
    rows = [
        ["", "sent_more", "sent_less", "annotations"],
        *[[n, a, b, "[['x'], ['y'], ['z']]"] for n, (a, b) in enumerate(texts)],
    ]
    with pytest.raises(Exception, match='"sent_more" and "sent_less" hold nearly the same text'):
        understand(table(rows), "a.csv")


def test_real_files(understand, datasets):
    assert len(understand(datasets / "banking77/train.csv", "train.csv").records) == 10_003
    assert len(understand(datasets / "clinc150/data_full.json", "data_full.json").records) == 23_700
    bbq = understand(datasets / "bias_safety/bbq/Age.jsonl.gz", "Age.jsonl.gz")
    assert (len(bbq.records), bbq.reading.understood) == (3680, "multiple choice")
    assert {r["kind"] for r in understand(datasets / "presidio_research/generated_large.json", "g.json").records} == {
        "document"
    }


@pytest.mark.parametrize(
    "names",
    ["Producto;Puntuación;Reseña", "Produkt;Bewertung;Rezension", "Produit;Note;Avis", "Prodotto;Voto;Recensione",
     "Produto;Nota;Avaliação", "Product;Beoordeling;Recensie", "Produkt;Ocena;Opinia", "Produkt;Betyg;Recension",
     "Товар;Оценка;Отзыв", "商品名;評価;レビュー", "商品;评分;评论"],
)  # fmt: skip
def test_reviews_in_other_languages(understand, names):
    product, rating, review = names.split(";")
    content = f'{names}\nLamp;4,5;"{GOOD}<br />It&#39;s warm."\nChair;1,0;{BAD}\n'
    taken = understand(content, "a.csv")
    assert taken.reading.columns == {"review": review, "rating": rating, "product": product}
    assert [record["rating"] for record in taken.records] == [4.5, 1.0]
    assert taken.records[0]["messages"][1]["content"] == f"{GOOD}\nIt's warm."
