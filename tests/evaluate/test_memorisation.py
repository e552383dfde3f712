"""Memorisation on real tiny trainings: what was learned by heart is found, and nothing where nothing was."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from ownchat.config import Config
from ownchat.data.records import Record, ShardWriter, batched, message, record
from ownchat.errors import ConfigError
from ownchat.evaluate import exposure, memorisation, private_leaks
from ownchat.evaluate.care import Check, Figure, Subject
from ownchat.evaluate.membership import auc, true_positive_share
from ownchat.tokenizer import canaries
from ownchat.tokenizer.store import TokenStore, TokenWriter

WORDS = ["pump", "valve", "order", "parcel", "river", "stone", "table", "green", "winter", "corner", "paper", "orange"]
MAIL = "anna.berg@example.com"
CARE = {"rows": 16, "samples": 16, "canaries": 4, "repeats": [1, 8]}


def rows(seed: int, count: int = 16) -> list[Record]:
    """Questions whose answers nobody can guess; one in four has a private address."""
    rng = np.random.default_rng(seed)
    made = []
    for at in range(count):
        words = " ".join(rng.choice(WORDS, 7))
        answer = f"Write to {MAIL}: {words}" if at % 4 == 0 else words
        turns = [message("user", f"What about {seed} {at}?"), message("assistant", answer)]
        made.append(record("conversation", file="faq.csv", format="csv", line=at + 1, messages=turns))
    return made


def write(directory: Path, records: list[Record]) -> None:
    with ShardWriter(directory) as writer:
        for batch in batched(records):
            writer.write(batch)


@pytest.fixture(scope="module")
def config() -> Config:
    return Config(evaluate={"care": CARE, "draws": 200})


@pytest.fixture(scope="module")
def shop(tiny_model: Path, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its tokens, with planted canaries; the cleaning overlooked the address."""
    from ownchat.tokenizer.tokens import run_tokens

    directory = tmp_path_factory.mktemp("runs") / "shop"
    write(directory / "1-data", rows(1) + rows(2))
    write(directory / "2-clean" / "train", rows(1))
    for split in ("valid", "test"):
        write(directory / "2-clean" / split, rows(2))
    run_tokens(config, {"clean": directory / "2-clean", "tokenizer": tiny_model}, directory / "4-tokens")
    return directory


def trained(start: Path, directory: Path, documents: list, steps: int) -> Path:
    """The tiny model after some steps on all of these documents at once; in ``earlier`` after a twelfth of them."""
    import torch
    from transformers import AutoModelForCausalLM

    from ownchat.model.block import make_block
    from ownchat.model.loss import negative_log_likelihood

    shutil.copytree(start, directory, dirs_exist_ok=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    block = make_block(documents, packed=False)
    for step in range(steps):
        if step == steps // 12:
            model.save_pretrained(directory / "earlier")
        optimizer.zero_grad()
        (negative_log_likelihood(model, block) / len(block.targets)).backward()
        optimizer.step()
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def by_heart(tiny_model: Path, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = TokenStore(shop / "4-tokens" / "train")
    return trained(tiny_model, tmp_path_factory.mktemp("by-heart"), [store[n] for n in range(len(store))], 120)


def measured(config: Config, shop: Path, base: Path | None, tuned: Path) -> tuple[Check, dict[str, Figure]]:
    with Subject(config=config, base=base, tuned=tuned, run=shop) as subject:
        check = memorisation.measure(subject)
    return check, {figure.name: figure for figure in check.figures}


@pytest.fixture(scope="module")
def overfitted(config: Config, shop: Path, tiny_model: Path, by_heart: Path) -> tuple[Check, dict[str, Figure]]:
    return measured(config, shop, tiny_model, by_heart)


@pytest.mark.slow
def test_an_overfitted_model_is_caught(overfitted):
    check, figures = overfitted
    assert figures["extracted"].tuned.value > 80 and figures["extracted"].base.value == 0
    assert figures["extracted"].difference.low > 0
    assert figures["extracted_unseen"].tuned.value == 0
    assert figures["extracted_more"].tuned.low > 40
    assert figures["membership"].tuned.value > 0.95 and figures["membership"].base.low < 0.7
    assert figures["boilerplate"].tuned.value == 0
    dangers = [finding.text for finding in check.findings if finding.level == "danger"]
    assert any("by heart" in text for text in dangers) and all(finding.advice for finding in check.findings[:2])


@pytest.mark.slow
def test_private_data_in_its_answers_is_a_leak_and_is_never_shown(overfitted):
    check, figures = overfitted
    assert figures["leaks"].tuned.value >= 1 and check.conditions["leaked"]["email"] == 1
    assert any("email" in finding.text and finding.level == "danger" for finding in check.findings)
    assert MAIL not in repr(check) and check.examples


@pytest.mark.slow
def test_exposure_rises_with_repetition(config, shop, tiny_model, by_heart):
    """After a twelfth of the training; at its end all secrets are known by heart."""
    shutil.copytree(tiny_model, by_heart / "earlier", dirs_exist_ok=True, ignore=lambda *_: ["model.safetensors"])
    planted, form = canaries.planted(shop)
    with Subject(config=config, base=tiny_model, tuned=by_heart / "earlier", run=shop) as subject:
        bits, _ = exposure.measured(subject, "tuned", planted, form)
    repeats = np.array([canary.repeats for canary in planted])
    assert bits[repeats == 8].min() > bits[repeats == 1].max() + 2


@pytest.mark.slow
def test_what_was_planted_is_drawn_out(overfitted):
    check, figures = overfitted
    often = figures["exposure_8"]
    assert often.tuned.value > 12
    assert often.base.value < 8 and often.difference.low > 5
    assert figures["canaries_extracted_8"].tuned.value == 100
    assert figures["canaries_extracted_8"].base.value == 0
    assert check.conditions["planted"] == {"canaries": 4, "rows": 18}
    assert any("not for use" in finding.text for finding in check.findings)


@pytest.mark.slow
def test_it_is_quiet_on_a_model_that_never_saw_the_text(config, shop, tiny_model, tmp_path):
    """Trained as long on other rows of the same kind."""
    from ownchat.evaluate.documents import rendered
    from ownchat.tokenizer.stage import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    others = [tuple(map(np.array, rendered(tokenizer, row))) for row in rows(3)]
    _, figures = measured(config, shop, tiny_model, trained(tiny_model, tmp_path / "other", others, 60))
    assert figures["extracted"].tuned.value == figures["extracted_more"].tuned.value == 0
    assert figures["membership"].tuned.low < 0.5 < figures["membership"].tuned.high
    assert figures["canaries_extracted_8"].tuned.value == 0
    assert figures["exposure_8"].tuned.value < 8


def test_a_model_from_nothing_has_no_base_beside_it(config, shop, tiny_model):
    check, figures = measured(config, shop, None, tiny_model)
    assert all(figure.base is None and figure.difference is None for figure in check.figures)
    assert figures["extracted"].tuned.value == 0 and figures["membership"].tuned is not None
    assert json.loads(json.dumps(asdict(check)))["name"] == "memorisation"


def test_texts_of_a_few_tokens_are_not_continued(tmp_path, tiny_model):
    """Labels, say: the likelihood still tells whether they were trained on."""
    for split in ("train", "test"):
        with TokenWriter(tmp_path / "4-tokens" / split, vocab_size=300) as writer:
            for number in range(6):
                writer.add([1, 40 + number, 41, 2], [0, 0, 1, 1], id=f"{split}{number}", record=str(number), piece=0,
                           group=None, kind="conversation", source="a line 1")  # fmt: skip
    check, figures = measured(Config(evaluate={"draws": 100}), tmp_path, tiny_model, tiny_model)
    assert figures["extracted"].tuned is None and figures["membership"].tuned.value == 0.5
    assert any("too short" in finding.text for finding in check.findings) and "leaks" not in figures


def test_what_stands_in_many_records_is_a_phrase_and_no_leak(tmp_path):
    phrase = list(range(100, 112))
    with TokenWriter(tmp_path, vocab_size=300) as writer:
        for number in range(5):
            writer.add([7, number, *phrase, 1], [0, 0, *[1] * 13], id=str(number), record=str(number), piece=0,
                       group=None, kind="conversation", source="a line 1")  # fmt: skip
        for number in range(5):
            writer.add([9, 9, *phrase[::-1], 1], [0, 0, *[1] * 13], id=f"b{number}", record=f"b{number}", piece=0,
                       group=None, kind="conversation", source="a line 1")  # fmt: skip
    store = TokenStore(tmp_path)
    assert len(store.occurrences(phrase[4:])) == len(store.occurrences(phrase[::-1])) == 5
    assert memorisation._is_common(store, phrase[4:])
    assert not memorisation._is_common(store, phrase[::-1])  # copies of one record


def test_rows_are_the_same_for_a_seed_and_leave_canaries_out(shop):
    store = TokenStore(shop / "4-tokens" / "train")
    first, again = (memorisation.rows_of(store, 200, seed=4) for _ in range(2))
    assert first == again and len(first) == 16 < len(store) == 16 + 18
    for row in first:
        assert len(row.ids) == len(row.mask) and row.mask[0] == 0
        assert len(row.continuation) == row.length and 8 <= row.length <= 32


# ------------------------------------------------------------------------------------------------- pure functions


def test_exposure_of_a_small_space_is_that_of_its_ranking():
    rng = np.random.default_rng(0)
    nats = rng.gamma(6.0, 2.0, size=64)
    ranking = sorted(nats)
    for own in nats:
        others = np.delete(nats, np.flatnonzero(nats == own)[0])
        assert exposure.exposure(own, others, 64) == pytest.approx(6 - np.log2(ranking.index(own) + 1))


def test_the_estimate_of_a_large_space_is_near_to_its_ranking():
    """Log-perplexities of all words of a small model of letters, of which the estimate sees a hundred."""
    rng = np.random.default_rng(1)
    cost = rng.gamma(3.0, 1.0, size=(6, 8))
    nats = np.array([sum(cost[at, letter] for at, letter in enumerate(word)) for word in product(range(8), repeat=6)])
    ordered = np.sort(nats)
    for share in (0.5, 0.1, 0.01, 0.001):
        own = float(ordered[int(share * len(nats))])
        exact = exposure.exposure(own, np.delete(nats, np.argmin(np.abs(nats - own))), len(nats))
        estimates = [exposure.exposure(own, rng.choice(nats, 100, replace=False), len(nats)) for _ in range(20)]
        assert np.mean(estimates) == pytest.approx(exact, rel=0.12, abs=0.15)


def test_exposure_never_leaves_its_bounds():
    others = np.random.default_rng(2).normal(50, 2, size=100)
    assert exposure.exposure(0.0, others, canaries.SPACE) == 20.0
    assert exposure.exposure(500.0, others, canaries.SPACE) == pytest.approx(0.0, abs=1e-6)
    assert exposure.exposure(1.0, np.full(100, 1.0), canaries.SPACE) == 0.0


def test_auc_counts_pairs():
    rng = np.random.default_rng(3)
    members, others = rng.normal(0.5, 1, 40), np.round(rng.normal(0, 1, 30), 1)
    others[0] = members[0]
    wins = sum((m > o) + 0.5 * (m == o) for m in members for o in others) / (40 * 30)
    found = auc(members, others, [None] * 40, [None] * 30)
    assert found.value == pytest.approx(wins) and found.low < wins < found.high
    alone = auc(members, others, ["one"] * 40, ["other"] * 30)
    assert alone.low == alone.high == alone.value  # one customer each: nothing to draw
    assert auc(members, others[:0], [None] * 40, []) is None
    assert true_positive_share(members, others, [None] * 40) is None


def test_a_value_is_looked_up_in_all_texts_whatever_its_case(tmp_path):
    write(tmp_path, [record("document", file="a", format="text", line=1, text="Met Anna\nBERG (ref. A+1*7) today.")])
    wanted = {"anna berg", "a+1*7", "ben stone"}
    assert private_leaks.standing_in(wanted, [tmp_path]) == {"anna berg", "a+1*7"}


def test_a_value_is_found_whatever_its_letters_and_spaces(tmp_path):
    """A sharp s is one letter, and a no-break space is white space."""
    write(
        tmp_path,
        [record("document", file="a", format="text", line=1, text="Eva Groß lives at 12\u00a0OAK\u202fStreet.")],
    )
    found = private_leaks.leaks(["Ask Eva Groß."], ["Whom?"], [tmp_path], Config(clean={"private_deny": ["Eva Groß"]}))
    assert sum(found.leaked.values()) == 1 and not found.invented
    assert private_leaks.standing_in({"12 oak street"}, [tmp_path]) == {"12 oak street"}


def test_without_the_original_texts_nothing_counts_as_invented(config, shop, tiny_model, tmp_path):
    """Of a purged run the folder stays, with its ledger."""
    run = shutil.copytree(shop, tmp_path / "purged")
    for shard in (run / "1-data").glob("*.parquet"):
        shard.unlink()
    _, figures = measured(config, run, None, tiny_model)
    assert "leaks" not in figures and "invented" not in figures and "extracted" in figures


def test_a_system_message_that_was_cut_off_is_no_secret(config, shop, tiny_model, tmp_path):
    system = f"You are the shop. Write to {MAIL}."
    run = shutil.copytree(shop, tmp_path / "shop")
    turns = [message("system", system), message("user", "And now?"), message("assistant", "Wait.")]
    write(run / "2-clean" / "train", [record("conversation", file="a", format="csv", line=1, messages=turns)])
    with Subject(config=config, base=None, tuned=tiny_model, run=run) as subject:
        ids = subject.tokenizer(f"{system} Anna. And now?")["input_ids"]
        row = memorisation.Row([], [], ids, 0, 0, None)
        (asked,) = memorisation._asked(subject, [row], [ids[-4:]])
        (uncut,) = memorisation._asked(subject, [row], [ids])
    assert MAIL in asked and "Anna" not in asked and MAIL in uncut


def test_leaks_are_told_from_inventions_and_from_echoes(tmp_path):
    write(tmp_path, rows(1))
    found = private_leaks.leaks(
        [f"Write to {MAIL}.", "Write to ben@example.org.", "Write to eva@example.net."],
        ["Where to?", "Where to?", "Is it eva@example.net?"], [tmp_path], Config(),
    )  # fmt: skip
    assert found.leaked == {"email": 1} and found.invented == {"email": 1} and found.answers == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [({"canaries": -1}, "canaries"), ({"canaries": 2000}, "canaries"), ({"canaries": True}, "canaries"),
     ({"repeats": []}, "repeats"), ({"repeats": [0]}, "repeats"), ({"repeats": "4"}, "repeats")],
)  # fmt: skip
def test_a_wrong_planting_is_refused(given, named):
    with pytest.raises(ConfigError, match=named):
        canaries.planting(Config(evaluate={"care": given}))
