"""One dial: what follows from a size, some minutes or nothing, and the published laws behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownchat.config import Config
from ownchat.errors import ConfigError
from ownchat.model import scaling_law
from ownchat.model.dial import Dial, Text, choose, lines
from ownchat.model.presets import PRESETS

TEXT = Text(unique=100_000_000, vocab=16_384, context=1024)
SHAKESPEARE = Text(unique=400_000, vocab=1024, context=512)
SPEED = 1e11  # two cores


def turn(text: Text = TEXT, speed: float = SPEED, minutes: float | None = None, **sections: Any) -> Dial:
    train = {"pretrain": sections.pop("pretrain", {}), "minutes": minutes}
    config = Config.model_validate({"model": {"base": "scratch", **sections}, "train": train})
    return choose(config, text, lambda: speed)


def minutes_of(dial: Dial, text: Text, speed: float = SPEED) -> float:
    """As the dial counts: narrow matrices are slow."""
    each = dial.size.training_flops_per_token * (1 + 96 / dial.size.width)
    return dial.pretrain["epochs"] * text.unique * each / speed / 60


# -------------------------------------------------------------------------------------------------------- the law


def test_repetition_is_worth_what_was_published() -> None:
    """Muennighoff et al. 2023: four passes nearly as good as new text, sixteen worth ten, more than forty nothing."""
    worth = {epochs: scaling_law.effective_tokens(1.0, epochs) for epochs in (0.5, 1, 2, 4, 16, 40, 1000)}
    assert worth[0.5] == 0.5 and worth[1] == 1
    assert worth[2] > 1.95 and worth[4] > 3.7
    assert 10 < worth[16] < 11 and worth[1000] - worth[40] < 1.3
    assert worth[1000] == pytest.approx(1 + 15.387756)


def test_compute_is_shared_as_published() -> None:
    """Besiroglu et al. 2024: about twenty tokens for each weight at Chinchilla's compute; both limits are reverse."""
    for tokens in (1e8, 1e10, 1.4e12):
        weights = scaling_law.optimal_weights(tokens)
        assert scaling_law.optimal_tokens(weights) == pytest.approx(tokens)
        flops = 6 * weights * tokens
        for other in (0.7, 1.4):  # at the same compute, no other share is better
            here, there = (scaling_law.predicted_loss(n, flops / (6 * n), 1) for n in (weights, other * weights))
            assert here < there
    assert 15 < 1.4e12 / scaling_law.optimal_weights(1.4e12) < 25


@pytest.mark.parametrize("flops", [1e13, 1e15, 1e17])
@pytest.mark.parametrize("unique", [10_000, 1_000_000, 10**9])
def test_no_other_size_is_predicted_to_be_better(unique: int, flops: float) -> None:
    sizes = [round(50_000 * 1.05**n) for n in range(300)]
    candidates = [(size, min(scaling_law.MOST_EPOCHS, flops / (6 * size * unique))) for size in sizes]
    weights, epochs = candidates[scaling_law.best_choice(unique, candidates)]
    assert weights <= max(sizes[0], scaling_law.WEIGHTS_PER_TOKEN * unique)
    found = scaling_law.predicted_loss(weights, unique, epochs)
    for size, passes in candidates:
        if size <= scaling_law.WEIGHTS_PER_TOKEN * unique:
            assert found <= scaling_law.predicted_loss(size, unique, passes)
    if unique == 10**9 and flops < 1e17:  # plenty of text: Chinchilla's share, on its grid
        assert epochs < 1 and weights == pytest.approx(scaling_law.optimal_weights(epochs * unique), rel=0.1)


# -------------------------------------------------------------------------------------------------------- the dial


@pytest.mark.parametrize("minutes", [1, 30, 600])
@pytest.mark.parametrize("text", [TEXT, SHAKESPEARE])
def test_minutes_are_used_and_not_passed(text: Text, minutes: float) -> None:
    dial = turn(text, minutes=minutes)
    taken = minutes_of(dial, text)
    assert taken <= minutes
    full = dial.pretrain["epochs"] == scaling_law.MOST_EPOCHS
    assert full or taken > 0.8 * minutes
    assert dial.size.parameters <= 1.1 * max(7 * text.unique, 200_000)


def test_more_time_is_a_larger_model_and_more_text() -> None:
    dials = [turn(minutes=minutes) for minutes in (30, 300, 3000, 30_000)]
    for what in (
        [dial.size.parameters for dial in dials],
        [dial.pretrain["epochs"] for dial in dials],
        [dial.pretrain["batch_tokens"] for dial in dials],
    ):
        assert what == sorted(what) and what[0] < what[-1]


def test_little_text_is_read_again() -> None:
    dial = turn(SHAKESPEARE, minutes=30)
    assert 16 <= dial.pretrain["epochs"] <= 40
    assert dial.pretrain["weight_decay"] > 0.1 and "little text" in dial.why["parameters"]
    plenty = turn(minutes=30)
    assert plenty.pretrain["epochs"] < 1 and plenty.pretrain["weight_decay"] == 0.1


def test_without_a_time() -> None:
    """Four passes, ten minutes at least, one evening at most; the machine is asked how fast it is."""
    assert minutes_of(turn(SHAKESPEARE), SHAKESPEARE) <= 10
    some = Text(unique=10_000_000, vocab=4096, context=512)
    assert 1 < turn(some).pretrain["epochs"] < 6
    evening = turn(Text(unique=10**10, vocab=16_384, context=1024))
    assert 0.8 * 480 < minutes_of(evening, Text(10**10, 1, 1)) <= 480 and "8 hours" in evening.why["parameters"]


def test_size_is_given() -> None:
    dial = turn(size="30M", minutes=60)
    assert dial.size.parameters == pytest.approx(30e6, rel=0.1) and 45 < minutes_of(dial, TEXT) <= 60
    assert dial.why["parameters"] == "30M asked for"
    assert turn(size="1M", text=SHAKESPEARE, minutes=10_000).pretrain["epochs"] == 40


def test_the_machine_is_asked_only_when_time_decides() -> None:
    def never() -> float:
        raise AssertionError

    train = {"pretrain": {"epochs": 2}}
    for model in ({"size": "30M"}, {"size": "gpt2"}, {"shape": {"layers": 4, "width": 128}}, {}):
        config = Config.model_validate({"model": {"base": "scratch", **model}, "train": train})
        assert choose(config, TEXT, never).pretrain["epochs"] == 2
    asked = []
    config = Config.model_validate({"model": {"base": "scratch"}})
    choose(config, TEXT, lambda: asked.append(1) or 1e11)
    assert len(asked) == 1


def test_everything_can_be_given() -> None:
    given = {"epochs": 3, "learning_rate": 0.001, "batch_tokens": 5000, "weight_decay": 0.7, "momentum": 0.6}
    dial = turn(size="30M", shape={"layers": 6}, architecture="llama", pretrain=given)
    assert dial.pretrain == {**given, "warmup_share": dial.pretrain["warmup_share"]}
    assert (dial.size.layers, dial.size.architecture) == (6, "llama")
    assert {dial.why[name] for name in given} == {"train.pretrain"} and dial.why["layers"] == "model.shape"


def test_what_is_read_again_decays_more() -> None:
    """No step at four passes: 0.1 there, and what the weights for each token ask for from 8 on."""
    found = [
        turn(SHAKESPEARE, size="2M", pretrain={"epochs": epochs, "learning_rate": 0.002})
        for epochs in (1, 4, 4.4, 5.657, 8, 40)
    ]
    decays = [dial.pretrain["weight_decay"] for dial in found]
    whole = min(3.2, found[0].size.parameters / SHAKESPEARE.unique)
    assert decays[:2] == [0.1, 0.1] and 0.1 < decays[2] < 0.2
    assert decays[4] == decays[5] == pytest.approx(whole, rel=0.02)
    assert decays[3] == pytest.approx((0.1 * whole) ** 0.5, rel=0.05)
    fast = turn(SHAKESPEARE, size="2M", pretrain={"epochs": 40, "learning_rate": 0.01})
    assert fast.pretrain["weight_decay"] == 0.96, "a step takes as much away as with 3.2 at a rate of 0.003"


def test_a_short_training_remembers_fewer_steps() -> None:
    found = [
        turn(size="30M", pretrain={"epochs": 1, "batch_tokens": 10**8 // steps}) for steps in (100, 590, 1180, 10**4)
    ]
    assert [dial.pretrain["momentum"] for dial in found] == [0.8, 0.8, 0.9, 0.95]
    assert "1,180 steps" in found[2].why["momentum"]


def test_fine_tuning_shares_the_minutes() -> None:
    alone, shared = (turn(Text(10**8, 16_384, 1024, later=later), size="30M", minutes=60) for later in (0, 500_000))
    left = (alone.pretrain["epochs"] - shared.pretrain["epochs"]) * 10**8
    assert left == pytest.approx(500_000, rel=0.01)
    assert turn(Text(10**8, 16_384, 1024, later=10**9), size="30M", minutes=60).pretrain["epochs"] == pytest.approx(
        alone.pretrain["epochs"] / 2, rel=0.01
    )


def test_what_fits_the_memory_is_chosen() -> None:
    free, small = (turn(Text(10**9, 16_384, 1024, fits=fits), minutes=10**5) for fits in (1e12, 5e6))
    assert small.size.parameters < 5.5e6 < free.size.parameters


@pytest.mark.parametrize("unique", [50, 500, 5_000])
def test_a_few_lines(unique: int) -> None:
    """Nothing sensible can be learned, and nothing breaks."""
    for minutes in (None, 1.0):
        dial = turn(Text(unique, 512, 512), minutes=minutes)
        assert dial.pretrain["batch_tokens"] >= 256 and 0 < dial.pretrain["epochs"] <= 40
        assert 0 < dial.pretrain["warmup_share"] <= 0.05


def test_training_is_long_enough_to_be_one() -> None:
    for dial, text in (
        (turn(minutes=1), TEXT),
        (turn(SHAKESPEARE, minutes=1), SHAKESPEARE),
        (turn(minutes=10**4), TEXT),
    ):
        steps = dial.pretrain["epochs"] * text.unique / dial.pretrain["batch_tokens"]
        assert steps > 195
        assert 1e-4 <= dial.pretrain["learning_rate"] <= 1e-2
        assert dial.pretrain["learning_rate"] * dial.pretrain["weight_decay"] <= 1.05e-2
        assert dial.sft["learning_rate"] <= 1e-3


# -------------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    preset = PRESETS[name]
    much = Text(unique=10**11, vocab=50_257, context=preset.context)
    dial = turn(much, size=name, pretrain={"epochs": 1})
    size = dial.size
    assert (size.architecture, size.layers, size.width, size.heads) == (
        "gpt2", preset.layers, preset.width, preset.heads,
    )  # fmt: skip
    assert dial.pretrain["batch_tokens"] == preset.batch_tokens and size.inner == 4 * size.width
    if preset.learning_rate is not None:
        assert dial.pretrain["learning_rate"] == preset.learning_rate and "table 2.1" in dial.why["learning_rate"]
    little = turn(SHAKESPEARE, size=name, pretrain={"epochs": 10})
    assert little.pretrain["batch_tokens"] < 30_000 and "Li et al." in little.why["learning_rate"]


def test_where_the_paper_contradicts_itself() -> None:
    assert "24 heads" in turn(size="gpt3-1.3b", pretrain={"epochs": 1}).why["heads"]
    assert "5,140" in turn(size="gpt3-13b", pretrain={"epochs": 1}).why["heads"]


def test_a_preset_with_another_shape() -> None:
    dial = turn(size="gpt2", shape={"layers": 2, "heads": 6}, pretrain={"epochs": 1})
    assert (dial.size.layers, dial.size.heads, dial.size.width) == (2, 6, 768)
    with pytest.raises(ConfigError, match="cannot be shared"):
        turn(size="gpt2", shape={"heads": 7}, pretrain={"epochs": 1})


# -------------------------------------------------------------------------------------------------------- printed


@pytest.mark.parametrize("settings", [{"size": "30M"}, {"size": "gpt3-13b"}, {}, {"shape": {"layers": 3, "width": 96}}])
def test_every_number_is_said_with_its_reason(settings: dict[str, Any]) -> None:
    dial = json.loads(json.dumps(turn(minutes=30, **settings).as_json()))
    assert set(dial["size"]) == {
        "layers", "width", "heads", "kv_heads", "inner", "vocab", "context", "architecture", "tied", "parameters",
        "embedding_parameters",
    }  # fmt: skip
    assert set(dial["pretrain"]) == {
        "epochs", "batch_tokens", "learning_rate", "weight_decay", "momentum", "warmup_share",
    }  # fmt: skip
    shown = lines(dial)
    assert all(len(line) <= 69 for line in shown)
    text = "\n".join(shown)
    for number in (dial["size"]["layers"], dial["pretrain"]["learning_rate"], f"{dial['pretrain']['batch_tokens']:,}"):
        assert str(number) in text
