"""The settings of a run, as its ``config.yaml`` has them, after it was made."""

from __future__ import annotations

from pathlib import Path

from ownchat.artifacts import write_atomic
from ownchat.config import Config, Origins, flatten, keys, load_config, to_yaml


def keep_evaluation(run: Path, config: Config, origins: Origins) -> None:
    """Make the section ``evaluate`` of ``config`` that of the run; what did not change keeps its value and origin."""
    from ownchat.evaluate.page import parse_settings  # brings the charts

    file = run / "config.yaml"
    stored, read = load_config(file)
    if stored.evaluate == config.evaluate:
        return
    made = stored.model_copy(update={"evaluate": config.evaluate})
    said = {row["key"]: row["origin"] for row in parse_settings(file.read_text(encoding="utf-8"))}
    before, defaults = flatten(stored), keys()
    merged: Origins = {}
    for key, value in flatten(made).items():
        if value != before[key]:
            merged[key] = origins.get(key, "given (ownchat evaluate)")
        else:
            merged[key] = said.get(key) or ("default" if value == defaults[key] else read[key])
    write_atomic(file, to_yaml(made, merged))
