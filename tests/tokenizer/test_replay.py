"""General rows are the share of the trained tokens that was asked for, and change nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownchat.config import load_config
from ownchat.errors import ConfigError
from ownchat.tokenizer.mix import mixes
from ownchat.tokenizer.packing import pack
from ownchat.tokenizer.replay import KIND, Replay, replay_of, replayed, sizes, told, with_replay
from ownchat.tokenizer.store import TokenStore, TokenWriter


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{share: 1.5}", "share = 1.5 is out of range"),
        ("{share: -0.1}", "out of range"),
        ("{share: true}", "out of range"),
        ("{share: ten}", "out of range"),
        ("{share: .nan}", "out of range"),
        ("{path: 7}", "names no file"),
        ("{path: ' '}", "names no file"),
    ],
)
def test_what_cannot_be_meant_is_told(given: str, message: str) -> None:
    config, _ = load_config(sets=[f"train.replay={given}"])
    with pytest.raises(ConfigError, match=message) as told:
        replay_of(config)
    assert "train.replay" in str(told.value)


def test_what_can_be_meant() -> None:
    def wanted(given: str, *more: str) -> Replay | None:
        return replay_of(load_config(sets=[f"train.replay={given}", *more])[0])

    assert wanted("{}") is None and wanted("{share: 0, path: x}") is None
    assert wanted("{share: 0.2}") == Replay(0.2, None)
    assert wanted("{path: general.jsonl}") == Replay(0.1, "general.jsonl")
    with pytest.raises(ConfigError, match="from nothing"):
        wanted("{share: 0.2}", "model.base=scratch")


def write(directory: Path, own: list[int], general: list[int]) -> TokenStore:
    """Documents of so many trained tokens and two of context; the user's in two files."""
    with TokenWriter(directory, vocab_size=300) as writer:
        for number, trained in enumerate([*own, *general]):
            is_own = number < len(own)
            file = ("mine/faq.csv", "mine/mail.csv")[number % 2] if is_own else "general.jsonl"
            writer.add([1] * (trained + 2), [0, 0] + [1] * trained, id=str(number), record=str(number), piece=0,
                       group=None, kind="conversation" if is_own else KIND, source=f"{file} line {number}")  # fmt: skip
    return TokenStore(directory)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    own=st.lists(st.integers(1, 40), min_size=2, max_size=60),
    general=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    share=st.floats(0.01, 0.9),
)
def test_an_epoch_has_the_share(
    tmp_path_factory: pytest.TempPathFactory, own: list[int], general: list[int], share: float
) -> None:
    store = write(tmp_path_factory.mktemp("store"), own, general)
    mix, facts = with_replay(store, None, share)
    assert mix is not None and facts is not None
    trained, mine = store.item_trained, replayed(store)
    assert trained.tolist() == own + general and mine.sum() == len(general)
    assert sizes(store) == {
        "rows": len(general), "tokens": sum(general) + 2 * len(general), "trained_tokens": sum(general),
    }  # fmt: skip
    epochs = [
        np.concatenate([block for step in pack(store.item_lengths, batch_tokens=200, block_tokens=100, seed=0,
                                               epoch=epoch, mix=mix) for block in step])
        for epoch in range(len(general))
    ]  # fmt: skip
    for documents in epochs:
        assert sorted(documents[~mine[documents]].tolist()) == list(range(len(own))), "all of the user's own, once"
    replay_tokens = np.mean([trained[documents][mine[documents]].sum() for documents in epochs])
    assert facts["share"] == pytest.approx(replay_tokens / (replay_tokens + sum(own)), abs=1e-4)
    # a row more or less is what the numbers of rows allow
    wanted = share / (1 - share) * sum(own)
    assert abs(replay_tokens - wanted) <= max(np.mean(general), sum(general) / len(general))


def test_without_general_rows_nothing_changes(tmp_path: Path) -> None:
    store = write(tmp_path, [3, 4], [])
    assert with_replay(store, None, 0.1) == (None, None)
    (mix,) = mixes({"*faq*": 2}, [store])
    assert with_replay(store, mix, 0.1) == (mix, None)


def test_the_mix_is_of_the_users_own_data(tmp_path: Path) -> None:
    store = write(tmp_path, [10, 10, 10, 10], [5, 5, 5, 5])
    with pytest.raises(ConfigError, match=r"there are conversations; mine/faq\.csv, mine/mail\.csv$"):
        mixes({"general*": 2}, [store])
    (mix,) = mixes({"conversations": 3, "*mail*": 0}, [store])
    made, facts = with_replay(store, mix, 0.5)
    assert made is not None and facts is not None and made.passes == (3, 0, 3)
    assert facts == {"share": 0.5, "passes": 3.0, "rows": 4, "tokens": 28, "trained_tokens": 20}
    assert told(facts) == "replay: 50 % of the trained tokens are general ones, 4 rows 3.0 times in an epoch"
    (nothing,) = mixes({"conversations": 0}, [store])
    left, facts = with_replay(store, nothing, 0.5)
    assert left is not None and left.num_documents == 0 and facts is None, "never general rows alone"
    assert "give more of them" in told({"share": 0.9, "passes": 9.0, "rows": 4, "tokens": 28, "trained_tokens": 20})
