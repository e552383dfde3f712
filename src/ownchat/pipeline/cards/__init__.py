"""Cards of a finished model and of its data, from facts alone: ``6-report/MODEL_CARD.md`` and ``DATA_CARD.md``."""

from __future__ import annotations

from pathlib import Path

from ownchat.artifacts import REPORT, write_atomic
from ownchat.pipeline.cards.data import data_card as data_card
from ownchat.pipeline.cards.facts import Facts as Facts
from ownchat.pipeline.cards.model import model_card as model_card

MODEL_CARD, DATA_CARD = "MODEL_CARD.md", "DATA_CARD.md"


def write(run: Path) -> None:
    """Both cards beside the report of a finished run; made anew each time, in seconds."""
    from ownchat.pipeline.export import source_of

    facts = Facts(source_of(str(run.resolve())))
    write_atomic(run / REPORT / MODEL_CARD, model_card(facts))
    write_atomic(run / REPORT / DATA_CARD, data_card(facts))
