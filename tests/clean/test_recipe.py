"""A recipe comes back as the settings that it was made of; anything else is refused."""

import pytest

from ownchat.clean.recipe import read_recipe, write_recipe
from ownchat.config import CleanConfig, load_config
from ownchat.errors import ConfigError


def test_a_recipe_comes_back(tmp_path):
    config = CleanConfig(languages=["en", "pt-BR"], min_words=3, toxicity="drop", quality_rules=["c4"])
    config = config.model_copy(update={"off_topic": "flag", "topic": "rooms", "contradictions": "drop"})
    write_recipe(tmp_path / "recipe.yaml", config)
    assert load_config(values=read_recipe(tmp_path / "recipe.yaml"))[0].clean == config


@pytest.mark.parametrize(
    "text, words",
    [
        ("recipe: 99\nclean: {}", "version 99"),
        ("clean: {greetings: false}", "no recipe"),
        ("recipe: 1\nclean: {}\ntrain: {}", "train"),
        ("- a", "no recipe"),
        ("a: [", "YAML"),
    ],
)
def test_others_are_refused(tmp_path, text, words):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_key_of_another_version_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("recipe: 1\nclean: {greeting: false}")
    with pytest.raises(ConfigError, match="greeting"):
        load_config(values=read_recipe(tmp_path / "recipe.yaml"))
    with pytest.raises(ConfigError, match="no such recipe"):
        read_recipe(tmp_path / "nothing.yaml")
