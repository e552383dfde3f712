"""Dialogue sets with a JSON of their own, handbooks, descriptions; ChatterBot and Rasa."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.datasets.yaml_tree import parse
from ownchat.data.files import UnreadableFile
from ownchat.errors import DataError


def turns(record):
    return [(turn["role"], turn["content"]) for turn in record["messages"]]


EXPECTED = [("user", "I need a table"), ("assistant", "For how many?"), ("user", "Two"), ("assistant", "Done.")]
SAID = [said for _, said in EXPECTED]
SGD = [{"speaker": "USER" if n % 2 == 0 else "SYSTEM", "utterance": said, "frames": []} for n, said in enumerate(SAID)]


@pytest.mark.parametrize(
    "content",
    [
        [{"dialogue_id": "1_0", "services": ["R"], "turns": SGD}] * 2,
        [
            {
                "conversation_id": "d",
                "instructions": "Be kind to each one of them",
                "utterances": [
                    {"index": n, "speaker": ["user", "assistant"][n % 2], "text": said} for n, said in enumerate(SAID)
                ],
            }
        ]
        * 2,
        [
            {
                "convo_id": 3,
                "original": [[["customer", "agent"][n % 2], said] for n, said in enumerate(SAID)],
                "delexed": [{"speaker": "agent", "text": "x"}],
            }
        ]
        * 2,
        [{"dialog": SAID, "act": [1, 2, 3, 4]}] * 2,
        {"train": [{"id": "a", "turns": SGD}], "test": [{"id": "b", "turns": SGD}]},
        {
            "A.json": {"goal": {}, "log": [{"text": said, "metadata": {}} for said in SAID]},
            "B.json": {"goal": {}, "log": [{"text": said, "metadata": {}} for said in SAID]},
        },
        [[{"sender": ["visitor", "bot"][n % 2], "message": said} for n, said in enumerate(SAID)]] * 2,
    ],
)
def test_forms(understand, content):
    read = understand(json.dumps(content), "a.json")
    assert read.format == "dialogues"
    assert [turns(record) for record in read.records] == [EXPECTED] * 2
    assert read.reading.entered["message"] == 8


def test_json_lines_and_actions(understand):
    row = {
        "id": 1,
        "original": [["customer", "Hi"], ["agent", "Hello"], ["action", "Account was pulled up"], ["agent", "Ok"]],
    }
    read = understand("\n".join([json.dumps(row)] * 3 + ['{"id": 2}', '{"id": 3, "original": []}']))
    assert turns(read.records[0]) == [("user", "Hi"), ("assistant", "Hello\nOk")]
    assert read.rules["an action, not said"] == 3
    assert read.rules["not of the file's form"] == 2


_TURN = st.tuples(
    st.sampled_from(["customer", "agent", "action"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)


@given(rows=st.lists(st.lists(_TURN, min_size=1, max_size=6), max_size=5))
@settings(max_examples=40, deadline=None)
def test_every_message_has_one_fate(understand, rows):
    sure = [["customer", "Hi there"], ["agent", "Hello"]]
    read = understand(
        json.dumps([{"id": n, "turns": row} for n, row in enumerate([sure, sure, sure, *rows])]), "a.json"
    )
    total = sum(map(len, rows)) + 6
    merges = sum(entry.makes for entry in read.entries)
    fates = sum(entry.count for entry in read.entries if entry.unit == "message" and entry.fate != "changed")
    assert read.reading.entered["message"] == total
    assert fates == total + merges
    kept = sum(len(record["messages"]) for record in read.records)
    assert kept == sum(entry.count for entry in read.entries if entry.unit == "message" and entry.fate == "kept")


def test_handbook_becomes_documents(understand):
    step = {
        "type": "interaction",
        "text": "Ask the customer for the full name of the account.",
        "subtext": ["the zip code"],
    }
    book = {
        "Returns": {"description": "refunds and returns", "subflows": {"Refund": {"actions": [step] * 5}}},
        "Other": {"a": step},
    }
    read = understand(json.dumps(book, indent=1), "a.json")
    assert read.format == "handbook"
    first, second = read.records
    assert first["text"].startswith("# Returns\n")
    assert "- the zip code" in first["text"]
    assert second["source"]["line"] > first["source"]["line"]


def test_a_list_of_texts_is_documents(understand):
    texts = [f"Once there was a house, and it had {n} doors." for n in range(4)]
    read = understand(json.dumps([*texts, "", 7], indent=1), "a.json")
    assert [record["text"] for record in read.records] == texts
    assert read.rules == {"empty": 1, "not of the file's form": 1}


@pytest.mark.parametrize(
    "content, reason",
    [
        ([{"service_name": "Bank_1", "slots": [], "intents": []}], "slots and intents"),
        ({"recover": ["pull-up-account", "verify-identity"], "reset": ["send-link"]}, "names or labels"),
        ({"flows": {"a": ["b"]}, "next": {"c": {"d": ["e"]}}}, "names or labels"),
        (["card_arrival", "card_linking", "age_limit"], "a list of names"),
        (
            {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "f"},
            "the state of the data set",
        ),
        ({"citation": "", "features": {"text": {"dtype": "string"}}, "splits": {}}, "the description of the data set"),
    ],
)
def test_descriptions_say_why_nothing_is_taken(understand, content, reason):
    with pytest.raises(UnreadableFile, match=reason):
        understand(json.dumps(content), "a.json")


# ------------------------------------------------------------------------------------------------------- ChatterBot

CORPUS = """categories:
- house
conversations:
- - Is it open?
  - yes
- - How many?
  - 42
  - Note: not all of them
  - - one
    - two
- []
- - Who?
"""


def test_chatterbot(understand):
    read = understand(CORPUS, "house.yml")
    assert read.format == "chatterbot"
    assert turns(read.records[0]) == [("user", "Is it open?"), ("assistant", "yes")]
    assert [text for _, text in turns(read.records[1])] == ["How many?", "42", "Note: not all of them", "one\ntwo"]
    assert [record["source"]["line"] for record in read.records] == [4, 6]
    assert read.records[0]["tags"] == ["house"]
    assert read.rules == {"empty": 1, "no assistant turn": 1}


def test_a_damaged_conversation_costs_itself(understand):
    read = understand(CORPUS.replace("  - yes\n", '  - "yes\n').replace("- []\n", ""), "house.yml")
    assert [record["source"]["line"] for record in read.records] == [6]
    assert read.rules == {"invalid YAML": 1, "no assistant turn": 1}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
        "a: &a [*a]\n",
        "- " * 100_000 + "a",
        "[" * 100_000,
        "a: *nothing\n",
        "a: [x, &a y" + ", *a" * 2000 + "]\n",
        "\t- x\n  y: [",
    ],
)
def test_bombs_and_damage_are_refused(text):
    with pytest.raises(ValueError, match="line"):
        parse(text)


# ------------------------------------------------------------------------------------------------------------- Rasa

NLU = """version: "3.1"
nlu:
- intent: greet
  examples: |
    - hi
    hello [there](place)
- intent: faq/costs
  examples: |
    - what does it cost
- intent: order
  examples: |
    - I want a [lamp]{"entity": "thing"}
- lookup: thing
  examples: |
    - lamp
"""
STORIES = """stories:
- story: a sale
  steps:
  - intent: greet
  - action: utter_greet
  - intent: order
    entities:
    - thing: lamp
  - slot_was_set:
    - thing: lamp
  - action: utter_ask
- story: words
  steps:
  - user: hi
  - bot: how are you?
- story: only code
  steps:
  - intent: order
  - action: action_order
rules:
- rule: say hi
  steps:
  - intent: greet
  - action: utter_greet
"""
DOMAIN = """intents:
- greet
responses:
  utter_greet:
  - text: Hello!
  utter_ask:
  - text: How many?
    buttons: []
  utter_faq/costs:
  - text: Two euros.
"""


def rasa(understand, *files):
    from ownchat.config import DataConfig
    from ownchat.data.datasets.rasa import read_rasa_bot, recognise_rasa
    from ownchat.data.files import open_file

    def read(folder):
        opened = []
        for name, content in files:
            (folder / name.rpartition("/")[2]).write_text(content)
            opened.append(open_file(folder / name.rpartition("/")[2], name))
        assert all(recognise_rasa(file) > 0.8 for file in opened)
        return list(read_rasa_bot(opened, DataConfig()).rows)

    return read


def test_rasa_yaml(understand, tmp_path):
    files = [("bot/data/nlu.yml", NLU), ("bot/data/stories.yml", STORIES), ("bot/domain.yml", DOMAIN)]
    items = rasa(understand, *files)(tmp_path)
    records = [item for item in items if isinstance(item, dict)]
    assert [text for _, text in turns(records[0])] == ["hi", "Hello!", "I want a lamp", "How many?"]
    assert [text for _, text in turns(records[1])] == ["hi", "how are you?"]
    assert turns(records[2])[0][0] == "user"  # the rule, with one of the examples
    said = [[text for _, text in turns(record)] for record in records[3:]]
    assert said == [["hi", "Hello!"], ["hello there", "Hello!"], ["what does it cost", "Two euros."]]
    rules = [item.rule for item in items if not isinstance(item, dict)]
    assert rules == ["no answer", "answered in several ways"]


def test_rasa_markdown(understand, tmp_path):
    nlu = "## intent:greet\n- hi\n- hello\n\n## synonym:x\n- y\n"
    stories = (
        '## path 1\n* greet\n  - utter_greet\n* bye{"n": 1}\n  - utter_bye\n\n## path 2\n* greet\n  - utter_greet\n'
    )
    items = rasa(understand, ("d/nlu.md", nlu), ("d/stories.md", stories), ("d/domain.yml", DOMAIN))(tmp_path)
    records = [item for item in items if isinstance(item, dict)]
    assert [text for _, text in turns(records[0])] == ["hi", "Hello!"]  # cut before the bye, which has no example
    assert len(records) == 4
    assert "utter_bye" not in str(records)
    (entry,) = [item for item in items if not isinstance(item, dict)]
    assert (entry.fate, entry.rule) == ("cut", "a part of the bot is missing")


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_yaml_is_no_crash(understand, data):
    content = bytearray(data.draw(st.sampled_from([CORPUS, NLU, STORIES, DOMAIN])).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    try:
        understand(bytes(content), "a.yml")
    except (UnreadableFile, DataError):
        return


def test_real_files(understand, datasets):
    read = understand(datasets / "sgd/dev/dialogues_001.json.gz", "dialogues_001.json.gz")
    assert (len(read.records), read.reading.entered["message"]) == (128, 1650)
    read = understand(datasets / "taskmaster4/data/data_00.json.gz", "data_00.json.gz")
    assert (len(read.records), read.reading.entered["message"]) == (500, 1883)
    read = understand(datasets / "abcd_sample/data/abcd_sample.json", "abcd_sample.json")
    assert len(read.records) == 3
    for path in sorted((datasets / "chatterbot_english").glob("*.yml")):
        import yaml

        wanted = yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]
        assert understand(path, path.name).rows == len(wanted)
