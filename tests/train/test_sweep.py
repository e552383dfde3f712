"""The search of a sweep: what is read from --set, which settings are tried, which go on."""

from __future__ import annotations

import math

import pytest

from ownchat.config import load_config
from ownchat.errors import ConfigError
from ownchat.train.sweep import Choice, Range, Space, grid, parse, promoted, rung_steps, rungs, suggest

RATES = "train.learning_rate=5e-4,1e-3,2e-3"


def test_values_ranges_and_fixed_settings() -> None:
    ranges = ["model.lora_rank=8..64:log", "train.weight_decay=0..0.1"]
    space = parse([RATES, *ranges, "train.seed=3", "train.schedule=linear"])
    assert space.axes == (
        Choice("train.learning_rate", ("5e-4", "1e-3", "2e-3")),
        Range("model.lora_rank", 8, 64, log=True, whole=True),
        Range("train.weight_decay", 0, 0.1, log=False, whole=False),
    )
    assert space.fixed == ("train.seed=3", "train.schedule=linear")


def test_commas_in_brackets_are_one_value() -> None:
    space = parse([RATES, "clean.languages=[en, de]"])
    assert space.fixed == ("clean.languages=[en, de]",)
    assert load_config(sets=space.fixed)[0].clean.languages == ["en", "de"]


@pytest.mark.parametrize(
    "sets, what",
    [
        ([], "nothing to try"),
        (["train.learning_rate=1e-3"], "nothing to try"),
        (["train.learning_rates=1e-3,2e-3"], 'did you mean "train.learning_rate"'),
        (["trian.learning_rate=1e-3,2e-3"], "unknown key"),
        (["train.learning_rate"], 'has no "="'),
        (["train.learning_rate=1e-3,-1"], r"train.learning_rate = .*greater than 0"),
        (["train.learning_rate=1e-3,fast"], "valid number"),
        (["train.learning_rate=1e-3,,2e-3"], "an empty value"),
        (["train.learning_rate=1e-3,0.001"], "are the same"),
        ([RATES, "train.learning_rate=1e-2,1e-4"], "given twice"),
        (["train.learning_rate=1e-2..1e-4"], "the range 1e-2..1e-4 is empty"),
        (["train.learning_rate=1e-4..1e-2:exp"], "only :log"),
        (["train.learning_rate=0..1e-2:log"], "a range above 0"),
        (["train.learning_rate=-1..1e-2"], "greater than 0"),
        (["train.learning_rate=a..b"], "is no range"),
        (["train.learning_rate=1e-4..nan"], "is empty"),
        (["model.lora_rank=1.5..8"], "a whole number"),
        (["model.lora_rank=8..4096"], "less than or equal to 1024"),
        (["train.method=lora..full"], "train.method"),
        (["clean.seed=1,2"], "all trials share the same records"),
        (["tokenizer.max_tokens=256,512"], "all trials share the same records"),
        (["model.base=starter,other"], "tokenizers do not compare"),
        (["train.epochs=1,2"], "length of the whole training"),
        (["train.preference_beta=0.1,0.5"], "objectives do not compare"),
    ],
)
def test_what_cannot_be_swept_is_said(sets: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        parse(sets)


def test_a_grid_is_all_points_in_order() -> None:
    points = grid(parse([RATES, "model.lora_rank=8,16"]))
    assert len(points) == 6 and len({tuple(point.items()) for point in points}) == 6
    assert points[0] == {"train.learning_rate": "5e-4", "model.lora_rank": "8"}
    assert points[1] == {"train.learning_rate": "5e-4", "model.lora_rank": "16"}
    assert points[-1] == {"train.learning_rate": "2e-3", "model.lora_rank": "16"}


def test_ten_thousand_points_are_refused_or_drawn() -> None:
    values = ",".join(str(n) for n in range(1, 101))
    space = parse([f"model.lora_rank={values}", f"model.lora_alpha={values}"])
    with pytest.raises(ConfigError, match="the grid has 10,000 points") as refused:
        grid(space)
    assert "--trials" in str(refused.value)
    drawn = grid(space, trials=20, seed=1)
    assert len({tuple(point.items()) for point in drawn}) == 20
    assert drawn == grid(space, trials=20, seed=1) != grid(space, trials=20, seed=2)
    assert grid(parse([RATES]), trials=20) == grid(parse([RATES]))


def test_a_range_is_no_grid() -> None:
    with pytest.raises(ConfigError, match="--sampler optuna"):
        grid(parse(["train.learning_rate=1e-4..1e-2:log"]))


def test_a_third_goes_on_until_one_is_trained_whole() -> None:
    for trials in range(1, 40):
        shares = rungs(trials, 10_000)
        alive = list(range(trials))
        for _ in shares[1:]:
            alive = promoted({number: float(number) for number in alive})
        assert alive[0] == 0 and shares[-1] == 1 and list(shares) == sorted(shares)
        assert len(alive) <= max(1, math.ceil(trials / 9))
    assert rungs(9, 20) == (1.0,), "too short to be cut"


def test_losses_decide_and_the_earlier_wins_a_tie() -> None:
    assert promoted({3: 1.0, 1: 1.0, 2: 0.5, 7: 9.0}) == [2, 1]
    assert promoted({}) == []


def test_rungs_are_the_same_share_for_every_batch_size() -> None:
    assert [rung_steps(total, 1 / 3) for total in (90, 45, 10, 1)] == [30, 15, 4, 1]
    assert all(rung_steps(total, 1.0) == total for total in range(1, 100))


def test_optuna_finds_the_bottom_and_repeats_itself() -> None:
    pytest.importorskip("optuna", reason="pip install 'ownchat[sweep]'")
    space = parse(["train.learning_rate=1e-5..1e-1:log", "model.lora_rank=4..64", "train.schedule=cosine,linear"])

    def loss(point: dict[str, str]) -> float:  # lowest at a rate of 1e-3
        return (math.log10(float(point["train.learning_rate"])) + 3) ** 2 + (point["train.schedule"] == "linear")

    def search(stop: int) -> list[dict[str, str]]:
        tried: list[tuple[dict[str, str], float | None]] = []
        for number in range(stop):
            point = suggest(space, tried, number)
            load_config(sets=[f"{key}={value}" for key, value in point.items()])
            tried.append((point, None if number == 2 else loss(point)))  # one fails
        return [point for point, _ in tried]

    points = search(24)
    assert points == search(24), "an interrupted sweep goes on as it would have"
    early, late = (sorted(map(loss, part))[len(part) // 2] for part in (points[:6], points[-6:]))
    assert late < early, "later trials are nearer to the bottom"
    assert all(4 <= int(point["model.lora_rank"]) <= 64 for point in points)


def test_values_are_written_as_they_are_tried() -> None:
    assert Range("train.learning_rate", 1e-4, 1e-2, log=True, whole=False).text(0.00123456) == "0.001235"
    assert Space((Choice("a", ("1", "2")), Choice("b", ("1", "2", "3"))), ()).size == 6
