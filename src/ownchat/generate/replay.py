"""What the base says to general instructions of our own: rows for ``train.replay`` that bring no new knowledge.

A model that is trained on its own words is pulled back to where it was (self-distillation, as in Li and Hoiem 2016 and
Yang et al. 2024): no data set is needed, and nobody else's licence. The instructions were written for ownchat and
are others than those of the probe that forgetting is measured with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from ownchat import artifacts
from ownchat.data.ledger import Entry
from ownchat.data.reading import dropped, question_answer
from ownchat.data.records import Record

INSTRUCTIONS = Path(__file__).with_name("general_instructions.txt")
MOST_TOKENS = 128  # of an answer; one that has not ended by then is not used: its end would be learned where none is
FORMAT = "own answers"


class _Answer(TypedDict):
    instruction: str
    answer: str
    ended: bool


def own_answers(base: Path, *, threads: int | None = None) -> Iterator[Record | Entry]:
    """A conversation for each instruction, or the reason why there is none. ``base``: a model's directory.

    Greedy, so always the same. They are kept in ``$OWNCHAT_HOME/replay`` by the hashes of base and instructions.
    """
    answers = _answers(base, threads)
    for line, one in enumerate(answers, 1):
        file = INSTRUCTIONS.name
        if not one["ended"]:
            yield dropped(file, line, "answer did not end")
            continue
        made = question_answer(one["instruction"], one["answer"], "", "", file=file, format=FORMAT, line=line)
        if not isinstance(made, Entry):
            made["synthetic"] = True
        yield made


def _answers(base: Path, threads: int | None) -> list[_Answer]:
    name = f"{artifacts.fingerprint(base)[:16]}-{artifacts.fingerprint(INSTRUCTIONS)[:16]}-{MOST_TOKENS}.jsonl"
    kept = artifacts.home() / "replay" / name
    if not kept.is_file():
        lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in _ask(base, threads)]
        artifacts.write_atomic(kept, "".join(lines))
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]


def _ask(base: Path, threads: int | None) -> Iterator[_Answer]:
    from ownchat.generate.hf import chat_engine
    from ownchat.monitor.progress import progress
    from ownchat.tokenizer.render import prompt_ids

    instructions = INSTRUCTIONS.read_text(encoding="utf-8").splitlines()
    engine = chat_engine(base, threads=threads)
    try:
        prompts = [prompt_ids(engine.tokenizer, [{"role": "user", "content": text}]) for text in instructions]
        with progress("the base's own answers, once", len(prompts), "answers") as advance:
            answers = engine.answer_batch(prompts, MOST_TOKENS, progress=advance)
        for text, ids in zip(instructions, answers, strict=True):
            ended = bool(ids) and ids[-1] in engine.end_ids
            yield {"instruction": text, "answer": engine.text(ids).strip(), "ended": ended}
    finally:
        engine.close()
