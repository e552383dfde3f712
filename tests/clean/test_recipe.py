"""A recipe comes back as the settings that it was made of; anything else is refused."""

import pytest
import yaml

from ownchat.clean.recipe import read_recipe, write_recipe
from ownchat.config import CleanConfig, load_config
from ownchat.errors import ConfigError


def test_a_recipe_comes_back(tmp_path):
    config = CleanConfig(languages=["en", "pt-BR"], min_words=3, toxicity="drop", quality_rules=["c4"])
    config = config.model_copy(update={"off_topic": "flag", "topic": "rooms", "contradictions": "drop"})
    write_recipe(tmp_path / "recipe.yaml", config)
    assert load_config(recipe=read_recipe(tmp_path / "recipe.yaml"))[0].clean == config


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


def changed(tmp_path, change):
    write_recipe(tmp_path / "recipe.yaml", CleanConfig())
    content = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    change(content)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("version", [True, "1", 1.0, None, [1]])
def test_the_version_is_a_number(tmp_path, version):
    with pytest.raises(ConfigError, match=r"recipe.yaml: recipe: is the number of a version"):
        read_recipe(changed(tmp_path, lambda content: content.update(recipe=version)))


def test_what_is_missing_is_named(tmp_path):
    path = changed(tmp_path, lambda content: [content["clean"].pop(key) for key in ("greetings", "seed")])
    with pytest.raises(ConfigError, match=r"recipe.yaml: .* missing: greetings, seed"):
        read_recipe(path)


def test_values_that_cannot_be_name_the_file(tmp_path):
    for change in ({"test_share": 2}, {"toxicity": "perhaps"}, {"min_words": 9, "max_words": 3}):
        path = changed(tmp_path, lambda content, change=change: content["clean"].update(change))
        with pytest.raises(ConfigError, match=rf"recipe.yaml: clean.*{next(iter(change))}"):
            read_recipe(path)


def test_the_version_before_the_keys(tmp_path):
    path = changed(tmp_path, lambda content: content.update(recipe=2, clean={"something": 1}))
    with pytest.raises(ConfigError, match="a recipe of version 2; this ownchat reads version 1"):
        read_recipe(path)


def test_a_key_of_another_version_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("recipe: 1\nclean: {greeting: false}")
    with pytest.raises(ConfigError, match=r'recipe.yaml: unknown in clean: greeting\n.*mean "greetings"'):
        read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(ConfigError, match="no such recipe"):
        read_recipe(tmp_path / "nothing.yaml")


def test_what_a_recipe_leaves_open_goes_over_other_settings(tmp_path):
    write_recipe(tmp_path / "recipe.yaml", CleanConfig())
    (tmp_path / "settings.yaml").write_text("clean: {max_words: 9}\n")
    config, origins = load_config(tmp_path / "settings.yaml", recipe=read_recipe(tmp_path / "recipe.yaml"))
    assert config.clean.max_words is None and origins["clean.max_words"] == "given (recipe)"
