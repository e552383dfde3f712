"""How a model answers where a request leaves it open, and what it may say: the settings of its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from ownchat.config import Config, GenerateConfig, load_config
from ownchat.generate.disclosure import disclosure, run_of
from ownchat.generate.policy import Filter, Policy
from ownchat.serve.catalogue import Entry
from ownchat.serve.logs import log
from ownchat.serve.metrics import Metrics


class Conduct:
    """Of one model: the defaults of sampling, the filter of its answers, what users are told, and by which name the
    system text of its training goes (``system``)."""

    def __init__(self, generate: GenerateConfig, filter: Filter, disclosure: str | None) -> None:
        self.generate, self.filter, self.disclosure = generate, filter, disclosure
        self.system = _named(generate.prompt)
        self._reported = dict(filter.counts)
        self._lock = Lock()

    def report(self, metrics: Metrics) -> None:
        """Count what the filter held back since the last time."""
        with self._lock:
            now = dict(self.filter.counts)
            for rule, count in now.items():
                for _ in range(count - self._reported.get(rule, 0) if rule != "seen" else 0):
                    metrics.filtered(rule)
            self._reported = now


def _named(prompt: str | None) -> str:
    """The prompt that a run was trained with; of a file not where it lies.

    >>> _named("support@2"), _named("/home/anna/own.yaml"), _named(None)
    ('support@2', 'own.yaml', 'trained')
    """
    return "trained" if prompt is None else Path(prompt).name


class Conducts:
    """The conduct of each model, read anew when the settings of its run have changed. Threads may share it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[Path, int] | None, Conduct]] = {}
        self._lock = Lock()

    def of(self, entry: Entry) -> Conduct:
        """That of ``entry``; raises :class:`~ownchat.errors.ConfigError` for settings that cannot be kept.

        A policy that cannot be read lets nothing through: the owner wanted answers to be looked at.
        """
        run = None if entry.located is None else run_of(entry.located)
        file = None if run is None else run / "config.yaml"
        state = None if file is None else (file, file.stat().st_mtime_ns)
        with self._lock:
            known = self._known.get(entry.id)
            if known is not None and known[0] == state:
                return known[1]
            config = Config() if file is None else load_config(file)[0]
            conduct = self._made(entry, config, run)
            self._known[entry.id] = (state, conduct)
            return conduct

    def _made(self, entry: Entry, config: Config, run: Path | None) -> Conduct:
        def warn(message: str) -> None:
            log("policy", model=entry.id, message=message)

        card: Mapping[str, str] = {str(key): value for key, value in config.evaluate.card.items()}
        told = disclosure(entry.located, Policy.of(config.generate.policy), card, name=entry.id)
        return Conduct(config.generate, Filter.of(config, run, warn=warn), told)
