"""The memory that this process may have: the machine's, and that of the control groups it is in. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class ControlGroup(NamedTuple):
    """A control group (cgroup, version 1 or 2) with a limit: containers, systemd units, batch systems."""

    limit: int
    usage: Path
    stat: Path
    droppable: tuple[str, ...]  # keys of memory.stat: pages of files

    def used(self) -> int:
        """Bytes in use that cannot be dropped."""
        try:
            usage = int(self.usage.read_text())
            if usage < self.limit // 2:  # the common case, without the longer file
                return usage
            rows = dict(line.split() for line in self.stat.read_text().splitlines())
        except (OSError, ValueError):
            return 0
        return usage - sum(int(rows.get(key, 0)) for key in self.droppable)


def limited_groups(root: Path = Path("/")) -> list[ControlGroup]:
    """The process's control group and those above it, as far as they have a limit."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mount = root / "sys" / "fs" / "cgroup"
        if controllers == "memory":
            mount, names = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            droppable = ("total_inactive_file", "total_active_file")
        elif not controllers:
            names, droppable = ("memory.max", "memory.current"), ("inactive_file", "active_file")
        else:
            continue
        # in a container the path may be the host's and not be there: the mount itself is the container's group then
        parts = Path(path.lstrip("/")).parts
        for length in range(len(parts), -1, -1):
            directory = mount.joinpath(*parts[:length])
            try:
                limit = int((directory / names[0]).read_text())
            except (OSError, ValueError):  # no such group, or "max"
                continue
            if limit < 1 << 60:  # version 1 says "no limit" with a number of that size
                groups.append(ControlGroup(limit, directory / names[1], directory / "memory.stat", droppable))
    return groups


def meminfo(path: Path, name: str) -> int | None:
    """A line of ``/proc/meminfo`` in bytes; None where it is not told."""
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None
