"""``ownchat export``: a finished model for another program, in ``7-export/``, after it was run there and compared.

An export is built aside, compared, and takes its place with a manifest: what stands there is complete, and of the model
as it is now. What does not pass is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Literal, get_args

from ownchat import __version__, artifacts
from ownchat.artifacts import CLEAN, MANIFEST, REPORT, read_json, write_json
from ownchat.config import Config, load_config
from ownchat.errors import RunError, UserError
from ownchat.generate.locate import Located, locate
from ownchat.pipeline.runs import not_promoted

To = Literal["gguf", "ollama", "vllm", "hub"]
STAGE = "7-export"
PROMPTS = 8  # of the run that are compared
LONGEST_PROMPT = 1024  # tokens; longer ones are left out of the comparison
Say = Callable[[str], None]

# For models without a run, and what texts of a run may lack: digits, white space, other scripts, marks, code.
QUESTIONS = (
    "What is the capital of France?", "Write one sentence about the sea.", "Name three colours.",
    "How do I boil an egg?", "What is 12 times 12?", "Tell me a short story about a dog.",
    "Why is the sky blue?", "Give me a synonym for quick.",
)  # fmt: skip
TEXTS = (
    "In 2024 the 3 orders #10045 and 7,5 kg cost 1.234.567,89 EUR (approx. 50%).",
    "Two  spaces,\ttabs\t\tand\n\nempty lines \n  indented\r\n", "I'll say it's DON'T, we've they'RE l'été",
    "Grüße aus Köln, naïve café; ЁЖИК и кот; 東京までの送料はいくらですか; ทดสอบ; مرحبا; e\u0301 🙂👩‍👩‍👧 ½ ² Ⅷ",
    "def f(x): return {'a': [1, 22, 333, 4444]}  # https://example.com/?q=a_b&c=%20",
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What was made: ``parity`` is what the comparison found, ``commands`` are what to do with it."""

    path: Path
    num_bytes: int
    parity: str
    commands: tuple[str, ...]
    largest: float | None = None  # nats; None: not run in the program it is for


@dataclass(frozen=True)
class Source:
    """A finished model: of a run, or a directory of its own. ``name`` is for people and file names."""

    name: str
    run: Path | None
    located: Located
    config: Config

    @cached_property
    def conversations(self) -> list[Any]:
        """Records of the run's test split, then of its valid split; of no run, none."""
        from ownchat.data.records import read_records

        folders = [] if self.run is None else [self.run / CLEAN / split for split in ("test", "valid")]
        found: list[Any] = []
        for folder in folders:
            if folder.is_dir():
                found += read_records(folder)
        return found


def source_of(name: str) -> Source:
    """The run NAME or a model directory. Raises what :func:`~ownchat.generate.locate.locate` raises."""
    path = Path(name).expanduser()
    run = artifacts.run_directory(name)
    if not run.is_dir() and path.is_dir():
        run = path
    elif not run.is_dir():
        run = artifacts.existing_run(name)
    located = locate(run)
    config, _ = load_config(run / "config.yaml" if (run / "config.yaml").is_file() else None)
    return Source(run.resolve().name, None if located.model == run else run, located, config)


@artifacts.owner_only()
def export(
    name: str,
    to: To,
    *,
    kind: str = "f16",
    out: Path | None = None,
    adapter: bool = False,
    prompts: int = PROMPTS,
    force: bool = False,
    say: Say = print,
) -> Exported:
    """Write the model of a run (or of a directory, with ``out``) for another program; see the module.

    ``kind``: type of the matrices in a GGUF file. ``adapter``: the LoRA adapter alone. ``hub`` makes the folder that
    :func:`ownchat.pipeline.hub.upload` sends. Raises :class:`~ownchat.errors.ModelError` for a model that the program
    cannot run as it is and for an export past its tolerance, :class:`~ownchat.errors.RunError` for a run that does not
    meet its requirements (not with ``force``), and :class:`~ownchat.errors.UserError` for wishes that cannot be met.
    """
    if to not in get_args(To):
        raise UserError(f'nothing is exported to "{to}"', where="--to", fix=f"choose one of {', '.join(get_args(To))}")
    source = source_of(name)
    if not force and source.run is not None and (why := not_promoted(source.run)) is not None:
        raise RunError(why, fix="look at its report; --force exports it all the same")
    if to in ("gguf", "ollama"):
        from ownchat.generate.exports import gguf_file

        gguf_file.check_type(kind)  # type: ignore[arg-type]  # a word of the user's: this is where it is looked at
    if adapter and source.located.adapter is None:
        raise RunError("this run has no adapter: all weights were trained", where=name, fix="leave out --adapter")
    if out is None and source.run is None:
        raise UserError("this is no run, so there is no place for it", where=name, fix="name a folder with --out")
    label = "-".join([to, *([kind] if to in ("gguf", "ollama") else []), *(["adapter"] if adapter else [])])
    target = out.expanduser().resolve() if out is not None else Path(source.run or ".") / STAGE / label
    key = _key(source, label)
    theirs = _manifest(target)
    if theirs is not None and theirs["key"] == key and theirs["prompts"] >= prompts:
        say(f"{target} is there already")
        return Exported(**(theirs["export"] | {"path": target, "commands": tuple(theirs["export"]["commands"])}))
    if theirs is not None and theirs.get("of") != f"{source.name} {label}":
        theirs = None  # somebody else's, with what may lie beside it
    if theirs is None and target.exists() and (target.is_file() or any(target.iterdir())):
        raise RunError("something else is there", where=str(target), fix="choose an empty folder with --out")
    with nullcontext() if source.run is None else artifacts.locked(source.run):
        return _built(source, to, target, (key, f"{source.name} {label}"), (kind, adapter, prompts, say))


def _built(source: Source, to: To, target: Path, keys: tuple[str, str], wishes: tuple[str, bool, int, Say]) -> Exported:
    """Make it aside, compare, and put it in its place with a manifest."""
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700, parents=True)
    try:
        made = _BUILDERS[to](source, aside, target, *wishes)
        size = sum(file.stat().st_size for file in aside.rglob("*") if file.is_file())
        done = Exported(target, size, **made)
        manifest = {
            "key": keys[0], "of": keys[1], "version": __version__, "prompts": wishes[2],
            "export": asdict(done) | {"path": None},
        }  # fmt: skip
        write_json(aside / MANIFEST, manifest)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return done


def _key(source: Source, label: str) -> str:
    """What an export depends on: the model's files, how it is written, what it is told about sampling, the report."""
    parts = [__version__, label, artifacts.fingerprint(source.located.model), source.config.generate.model_dump_json()]
    if source.located.adapter is not None and label.endswith("adapter"):
        parts.append(artifacts.fingerprint(source.located.adapter))
    if label.startswith("hub"):
        parts.append(json.dumps(source.config.evaluate.card, sort_keys=True))
    if label.startswith("hub") and source.run is not None and (source.run / REPORT / "report.json").is_file():
        parts.append(artifacts.fingerprint(source.run / REPORT / "report.json"))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _manifest(target: Path) -> dict[str, Any] | None:
    """Of a complete export; other folders have files of that name, too, and are not ours to replace."""
    found = read_json(target / MANIFEST) if (target / MANIFEST).is_file() else None
    return found if isinstance(found, dict) and "export" in found else None


# ------------------------------------------------------------------------------------------------------ builders


def _gguf(
    source: Source, folder: Path, target: Path, kind: str, adapter: bool, prompts: int, say: Say
) -> dict[str, Any]:
    from ownchat.generate.exports.adapter import write_adapter
    from ownchat.generate.exports.gguf_file import write_gguf
    from ownchat.generate.exports.weights import Weights
    from ownchat.pipeline import export_checks

    model = source.located.model
    if not adapter:
        file = write_gguf(model, folder / f"{source.name}-{kind}.gguf", kind)  # type: ignore[arg-type]
        found = export_checks.gguf(source, file, kind, prompts)
        command = f"llama-server -m {quote(str(target / file.name))}"
    else:
        base = export_checks.base_of(source)
        file = write_gguf(base, folder / f"base-{kind}.gguf", kind, tokenizer=model)  # type: ignore[arg-type]
        beside = write_adapter(source.located.adapter or model, Weights(base), folder / f"{source.name}-adapter.gguf")
        found = export_checks.gguf(source, file, kind, prompts, beside)
        command = f"llama-server -m {quote(str(target / file.name))} --lora {quote(str(target / beside.name))}"
    return {"parity": found.line(), "largest": found.largest, "commands": (command,)}


def _ollama(
    source: Source, folder: Path, target: Path, kind: str, adapter: bool, prompts: int, say: Say
) -> dict[str, Any]:
    from ownchat.generate.exports import gguf_file, ollama
    from ownchat.generate.exports.weights import Weights
    from ownchat.model.load import load_tokenizer

    tokenizer: Any = load_tokenizer(source.located.model)
    shape = ollama.shape_of(tokenizer)  # before minutes of work
    made = _gguf(source, folder, target, kind, adapter, prompts, say)
    stops = [tokenizer.convert_ids_to_tokens(id) for id in gguf_file.end_tokens(source.located.model, tokenizer)]
    text = ollama.modelfile(
        shape, f"base-{kind}.gguf" if adapter else f"{source.name}-{kind}.gguf",
        adapter=f"{source.name}-adapter.gguf" if adapter else None, system=source.located.system,
        settings=source.config.generate, stops=stops, context=Weights(source.located.model).context,
    )  # fmt: skip
    artifacts.write_atomic(folder / "Modelfile", text)
    name = source.name.lower()
    made["commands"] = (
        f"ollama create {quote(name)} -f {quote(str(target / 'Modelfile'))}",
        f"ollama run {quote(name)}",
    )
    if shutil.which("ollama") is None:
        say("ollama is not installed here: run these two where it is; its file was run in llama.cpp")
    return made


def _vllm(
    source: Source, folder: Path, target: Path, kind: str, adapter: bool, prompts: int, say: Say
) -> dict[str, Any]:
    from ownchat.pipeline import export_checks, export_files

    if adapter:
        base = export_files.copy_adapter(source.located, folder)
        checked = export_checks.adapter(source, folder, prompts)
        return {"parity": checked, "commands": (export_files.serve_adapter_line(folder, target, base, source.name),)}
    export_files.copy_model(source.located.model, folder, source.config.generate)
    parity, largest = export_checks.vllm(source, folder, prompts, say)
    return {"parity": parity, "largest": largest, "commands": (export_files.serve_line(folder, target, source.name),)}


def _hub(
    source: Source, folder: Path, target: Path, kind: str, adapter: bool, prompts: int, say: Say
) -> dict[str, Any]:
    from ownchat.pipeline import cards, export_checks, export_files

    if adapter:
        export_files.copy_adapter(source.located, folder, for_others=True)
        checked = export_checks.adapter(source, folder, prompts)
    else:
        export_files.copy_model(source.located.model, folder, source.config.generate)
        checked = export_checks.plain(source, folder, prompts)
    card = cards.model_card(cards.Facts(source), adapter=adapter, for_others=True)
    artifacts.write_atomic(folder / "README.md", card)
    return {"parity": checked, "commands": (f"hf upload {quote(f'OWNER/{source.name}')} {quote(str(target))}",)}


_BUILDERS = {"gguf": _gguf, "ollama": _ollama, "vllm": _vllm, "hub": _hub}
