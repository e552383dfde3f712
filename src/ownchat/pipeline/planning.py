"""``ownchat plan``: the stages before training, which training will find done, and what it would take."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownchat import artifacts
from ownchat.artifacts import MODEL, TOKENIZER, TOKENS, owner_only
from ownchat.clean.recipe import check_settings
from ownchat.config import FROM_NOTHING, Config, Origins, load_config
from ownchat.data.remote import Source, existing
from ownchat.errors import ConfigError
from ownchat.model import quantize
from ownchat.model.presets import parse_size
from ownchat.pipeline.run import FromNothing, Say, elapsed_text, refuse_other_request, run_for, to_tokens
from ownchat.pipeline.system_prompt import with_prompt

if TYPE_CHECKING:
    from ownchat.train.plan import Forecast  # loads torch: not before the data are read

PARTS = {
    "libraries": "libraries and earlier stages",
    "weights": "weights",
    "adapter": "adapter",
    "masters": "float32 copies of the weights",
    "gradients": "gradients",
    "optimizer": "optimiser's moments",
    "activations": "activations of the largest block",
    "head": "logits of one chunk",
    "checkpoint": "a checkpoint on its way to disk",
}


@owner_only()
def plan(
    source: Source | str,
    *,
    name: str | None = None,
    config: Config | None = None,
    origins: Origins | None = None,
    device: str | None = None,
    count: int = 1,
    price: float | None = None,
    probe: bool = True,
    say: Say = print,
) -> Forecast:
    """Import, clean, tokenize; then say what training would take, on this machine or another.

    ``device``, ``count``: of another machine, see :mod:`ownchat.train.devices`; none: this one. ``price``: for one
    device and hour. ``probe``: correct the formula by three real steps, which only this machine can do. A following
    :func:`~ownchat.pipeline.run.train` of the same source finds its first stages done. A model from nothing is made for
    the probe, and otherwise only described, so that it may be one that does not fit here. Raises what they raise.
    """
    source = existing(source)
    if config is None:
        config, origins = load_config()
    check_settings(config)
    if config.model.size is not None:
        parse_size(config.model.size)  # before any work
    quantize.check(config.model.quantize, config.train.method, here=device is None)
    if device is None and count != 1:
        raise ConfigError("several of which device?", where="--count", fix="name it: --device h100")
    if device is not None:
        from ownchat.train.devices import device_named

        device_named(device)  # before any work
    config, origins = with_prompt(config, origins or {})
    run, key = run_for(source, name, config)
    with artifacts.locked(run), tempfile.TemporaryDirectory() as scratch:
        refuse_other_request(run, key, config, force=False)
        settings = run / "config.yaml"
        finished = settings.read_text(encoding="utf-8") if artifacts.finished_model(run) else None
        model: FromNothing = "left" if device is not None else "made" if probe else "described"
        base = to_tokens(source, run, config, origins, say, model=model)
        if config.model.base == FROM_NOTHING and device is not None:
            base = _described(run, config, device, count, Path(scratch) / MODEL, say)
        if finished is not None:  # it also holds what training derived
            artifacts.write_atomic(settings, finished)
        inputs = {"tokens": run / TOKENS, "tokenizer": run / TOKENIZER, "base": base}
        from ownchat.train.plan import Machine, forecast

        return forecast(config, inputs, Machine(device, count, price), scratch=run if probe and not device else None)


def _described(run: Path, config: Config, device: str, count: int, output: Path, say: Say) -> Path:
    """A model from nothing for other machines: what the dial says for what they compute, in a directory of its own."""
    from ownchat.model import dial
    from ownchat.model.stage import run_model
    from ownchat.train.devices import device_named
    from ownchat.train.speed import training_flops_on

    inputs = {"tokens": run / TOKENS, "tokenizer": run / TOKENIZER}
    speed = count * training_flops_on(device_named(device), config)
    done = run_model(config, inputs, output, flops_per_second=lambda: speed, weights=False)
    say(f"           on {count} x {device}:")
    for line in dial.lines(done.details):
        say(f"           {line}")
    return output


# ------------------------------------------------------------------------------------------------------ printing


def lines(plan: Forecast) -> list[str]:
    """The plan for people, at most 80 columns."""
    machine, model, data = plan.machine, plan.model, plan.data
    where = f"{machine['count']} x {machine['device']}" if machine["count"] > 1 else machine["device"]
    kind = "LoRA adapter" if model["method"] == "lora" else "all weights"
    rows = [
        ("Model", f"{_name(Path(model['base']))}, {_weights(model['parameters'])} weights"),
        ("Trained", f"{kind}, {_weights(model['trained'])} weights, in {machine['dtype']} on {where}"),
        ("Data", f"{data['documents']:,} documents, {data['tokens']:,} tokens, the longest {data['longest']:,}"),
        *(("Steps" if number == 0 else "", _phase(phase, alone=len(plan.phases) == 1))
          for number, phase in enumerate(plan.phases)),
        ("Micro-batch", f"at most {plan.block_tokens:,} tokens in one forward pass (largest: {plan.largest_block:,})"),
    ]  # fmt: skip
    shown = [f"{what:<12} {text}" for what, text in rows]
    measured = plan.measured_memory
    shown += ["", f"{'Memory':<34} {'formula':>10}" + (f" {'corrected':>10}" if measured else "")]
    for part, title in PARTS.items():
        if plan.memory[part] or measured.get(part):
            number = f" {_gigabytes(measured[part]):>10}" if measured else ""
            shown.append(f"  {title:<32} {_gigabytes(plan.memory[part]):>10}{number}")
    peak = f" {_gigabytes(plan.peak_bytes):>10}" if measured else ""
    shown.append(f"  {'peak':<32} {_gigabytes(plan.memory['peak']):>10}{peak}")
    verdict = "it fits" if plan.fits else "IT DOES NOT FIT"
    shown.append(f"  {verdict}: {_gigabytes(plan.available_bytes)} are there")
    shown += [f"    {way}" for way in plan.advice]
    shown += ["", f"{'Time':<34} {'formula':>10}" + (f" {'corrected':>10}" if measured else "")]
    for part, seconds in plan.seconds.items():
        indent = "  " if part in ("loading", "training", "export", "evaluation", "total") else "    "
        number = f" {elapsed_text(seconds):>10}" if measured else ""
        shown.append(f"{indent + part:<34} {elapsed_text(plan.formula_seconds[part]):>10}{number}")
    shown += ["", f"{plan.tokens_per_second:,.0f} tokens/s in training, from {machine['speed']}"]
    if plan.money is not None:
        shown.append(f"Money: {plan.money:,.2f} at the price given, for {machine['count']} device(s)")
    return shown + [f"- {note}" for note in plan.notes]


def _phase(phase: dict[str, Any], *, alone: bool) -> str:
    text = f"{phase['steps']:,} in {phase['epochs']:g} epochs: {phase['tokens']:,} tokens, "
    text += f"{phase['trained_tokens']:,} of them trained"
    return text if alone else f"{phase['name']}: {text}"


def _name(base: Path) -> str:
    return "from nothing" if base.name == MODEL else base.name


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"


def _weights(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
