"""Settings: precedence, origins, nearest names, and a written file that reads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownchat.config import ALIASES, Config, keys, load_config, to_yaml, with_derived
from ownchat.errors import ConfigError


def test_defaults_work_and_are_frozen() -> None:
    config, origins = load_config()
    assert config == Config() and set(origins.values()) == {"default"} and origins.keys() == keys().keys()
    with pytest.raises(Exception, match="frozen"):
        config.train.epochs = 1.0  # type: ignore[misc]


def test_set_beats_flag_beats_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  epochs: 7\n  seed: 7\n  patience: 7\n")
    config, origins = load_config(path, values={"train.epochs": 8.0, "train.seed": 8}, sets=["train.seed=9"])
    assert (config.train.patience, config.train.epochs, config.train.seed) == (7, 8.0, 9)
    assert origins["train.patience"] == "given (mine.yaml)"
    assert origins["train.epochs"] == "given (flag)" and origins["train.seed"] == "given (--set)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.epoch=3", 'did you mean "train.epochs"'),
        ("epochs=3", 'did you mean "train.epochs"'),
        ("trian.epochs=3", 'did you mean "train.epochs"'),
        ("train.epochs=zero", "train.epochs = 'zero'"),
        ("train.epochs=-1", "greater than 0"),
        ("train.epochs", 'has no "="'),
        ("train.method=qlora", "'lora' or 'full'"),
        ("generate.stop={", "cannot be read"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(sets=[text])
    assert message in str(caught.value)


def test_a_choice_that_yaml_reads_as_a_boolean(tmp_path: Path) -> None:
    assert load_config(sets=["clean.toxicity=off"])[0].clean.toxicity == "off"
    (tmp_path / "mine.yaml").write_text("clean:\n  contradictions: no\n  off_topic: off\n")
    config, origins = load_config(tmp_path / "mine.yaml")
    assert (config.clean.off_topic, config.clean.contradictions) == ("off", "off")
    (tmp_path / "again.yaml").write_text(to_yaml(config, origins))
    assert load_config(tmp_path / "again.yaml")[0] == config
    with pytest.raises(ConfigError, match="'off', 'flag' or 'drop'"):
        load_config(sets=["clean.toxicity=on"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trian:\n  epochs: 3\n", 'unknown section "trian"'),
        ("train:\n  epoch: 3\n", 'unknown key "train.epoch"'),
        ("train: 3\n", 'section "train" must hold keys'),
        ("- 1\n", "must hold sections"),
        ("train: {epochs: [\n", "not readable as YAML"),
    ],
)
def test_mistakes_in_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "bad.yaml")
    assert message in str(caught.value) and "bad.yaml" in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.yaml")


def test_written_configuration_reads_back_with_origins(tmp_path: Path) -> None:
    given = ["data.system='Be brief: # not a comment'", "data.map={question: q}", "generate.stop=['\\n\\n', 'END']"]
    config, origins = load_config(sets=given)
    config, origins = with_derived(config, origins, {"train.learning_rate": (1e-3, "default of lora")})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config, origins))
    assert load_config(path)[0] == config
    assert "learning_rate: 0.001  # derived (default of lora)" in path.read_text()
    assert "epochs: 2.0  # default" in path.read_text()


def test_aliases_are_keys() -> None:
    assert set(ALIASES.values()) <= keys().keys()


def test_lengths_that_leave_nothing():
    with pytest.raises(ConfigError, match="min_words 9 is more than max_words 3"):
        load_config(sets=["clean.min_words=9", "clean.max_words=3"])
    load_config(sets=["clean.min_words=3", "clean.max_words=3"])


@pytest.mark.parametrize(
    "given",
    [
        "{epochs: 0}",
        "{epochs: -1}",
        "{batch_tokens: 0.5}",
        "{learning_rate: 0}",
        "{weight_decay: -0.1}",
        "{momentum: 1}",
    ],
)
def test_pretraining_that_would_train_nothing(given: str) -> None:
    with pytest.raises(ConfigError, match="trains nothing"):
        load_config(sets=["model.base=scratch", f"train.pretrain={given}"])


def test_what_is_of_a_model_from_nothing_alone() -> None:
    with pytest.raises(ConfigError, match="scratch"):
        load_config(values={"model.size": "30M"})
    with pytest.raises(ConfigError, match="nothing to stand beside"):
        load_config(values={"model.base": "scratch", "train.method": "lora"})
    config, origins = load_config(values={"model.base": "scratch"})
    assert (config.train.method, origins["train.method"]) == ("full", "derived (a model from nothing)")


def test_a_text_of_several_lines_stays_on_its_line(tmp_path: Path) -> None:
    text = 'Be brief.\n\nSay "no" # often.\u2028End'
    config, origins = load_config(values={"data.system": text, "generate.stop": ["\n\n", "END"]})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config, origins), encoding="utf-8")
    assert load_config(path)[0] == config
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) == 2 + len(keys()) + len(Config.model_fields)
    assert sum(line.endswith("# given (flag)") for line in lines) == 2
