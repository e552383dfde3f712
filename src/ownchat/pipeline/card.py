"""The model card that goes with an upload: facts of the run, no text of its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ownchat import __version__
from ownchat.artifacts import CLEAN, MANIFEST, REPORT, read_json
from ownchat.config import FROM_NOTHING
from ownchat.evaluate import wording
from ownchat.pipeline.export_files import base_name

if TYPE_CHECKING:
    from ownchat.pipeline.export import Source


def model_card(source: Source, *, adapter: bool) -> str:
    """Markdown with the hub's header: base and licence, figures with intervals, data in numbers, limits, use."""
    base, license = base_name(source.located.base), license_of(source.located.base)
    header: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation",
                              "tags": ["ownchat"]}  # fmt: skip
    if base is not None:
        header |= {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    if license is not None:
        header["license"] = license
    report = None
    if source.run is not None and (source.run / REPORT / "report.json").is_file():
        report = read_json(source.run / REPORT / "report.json")
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {source.name}",
        _about(source, base, license, adapter),
    ]
    if report is not None:
        parts += ["## Result", wording.headline(report["held_out"]) + ".", wording.verdict(report["held_out"])]
        parts += [_figures(report["held_out"])]
        parts += ["## Training", _list(wording.training_facts(report["training"]))]
    if data := _data(source.run):
        parts += ["## Data", data]
    limits = wording.LIMITS if report is None else wording.limits(report["held_out"])
    parts += ["## Limits", "\n".join(f"- {limit}" for limit in limits), "## Use", _use(adapter, base)]
    return "\n\n".join(parts) + "\n"


def license_of(base: Path | None) -> str | None:
    """The licence that a base model's directory names: in our own note, or in the header of its card."""
    if base is None:
        return None
    if (base / MANIFEST).is_file() and isinstance(found := read_json(base / MANIFEST).get("license"), str):
        return found
    card = base / "README.md"
    if card.is_file() and (text := card.read_text(encoding="utf-8", errors="replace")).startswith("---\n"):
        try:
            header = yaml.safe_load(text.split("---\n", 2)[1])
        except (yaml.YAMLError, IndexError):
            return None
        return str(header["license"]) if isinstance(header, dict) and header.get("license") else None
    return None


def _about(source: Source, base: str | None, license: str | None, adapter: bool) -> str:
    what = "A LoRA adapter" if adapter else "A chat model"
    text = f"{what} made with ownchat {__version__}"
    if source.config.model.base == FROM_NOTHING:
        return f"{text} from nothing: tokenizer and weights were learned from the data below."
    text += f" from [{base}](https://huggingface.co/{base})." if base is not None else "."
    if license is None:
        text += " **The licence of the base is not known here: look it up before you publish.**"
    return text


def _figures(held_out: dict[str, Any]) -> str:
    """The table of the report: base, tuned, each with its interval."""
    sides = [side for side in ("base", "tuned") if held_out.get(side)]
    heads = "".join(f" {side} (95 % interval) |" for side in sides)
    lines = [f"| held-out |{heads}", "|---" * (len(sides) + 1) + "|"]
    for measure in wording.MEASURES:
        estimates = [held_out[side].get(measure.key) for side in sides]
        if not any(estimates):
            continue
        cells = [
            wording.MISSING if found is None
            else f"{wording.number(found['value'], measure.decimals)} ({wording.interval(found, measure.decimals)})"
            for found in estimates
        ]  # fmt: skip
        lines.append(f"| {measure.title}: {measure.meaning} ({measure.better} is better) | " + " | ".join(cells) + " |")
    lines.append(f"\nMeasured on {held_out['records']:,} records that training never saw.")
    return "\n".join(lines)


def _data(run: Path | None) -> str:
    """Numbers only: what it was trained on, and that private data were masked."""
    if run is None or not (run / CLEAN / MANIFEST).is_file():
        return ""
    report = read_json(run / CLEAN / MANIFEST)["report"]
    counts = report["counts"]
    facts = [f"{counts.get(split, 0):,} records in {split}" for split in ("train", "valid", "test")]
    masked = report["details"].get("rules", {}).get("row changed", {}).get("private data", 0)
    text = "The owner's own text: " + ", ".join(facts) + "."
    if masked:
        text += f" Private data were masked in {masked:,} places; no program finds all of them."
    return text


def _use(adapter: bool, base: str | None) -> str:
    if adapter:
        code = (
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base or "BASE"}"), "THIS")'
        )
    else:
        code = 'from transformers import pipeline\n\nchat = pipeline("text-generation", model="THIS")\n'
        code += 'print(chat([{"role": "user", "content": "Hello"}], max_new_tokens=100)[0]["generated_text"][-1])'
    return f"```python\n{code}\n```"


def _list(facts: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts)
