"""How much memory is free on a device; in a container or a job, what its control groups leave of the machine's."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

# By version of cgroups: below /sys/fs/cgroup; files of the limit, of the use, and the key of memory.stat that says how
# much of the use is page cache, which the kernel gives back at need. The keys count the groups below, as the use does.
GROUPS = {
    1: ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("", "memory.max", "memory.current", "inactive_file"),
}


def free_memory(device: torch.device) -> int | None:
    """Free bytes of the device's memory; None where the system does not tell."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, and not in use
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    return free_host_memory()


def free_host_memory(root: Path = Path("/")) -> int | None:
    """Free bytes of the host's memory for this process. root: the folder that holds proc and sys."""
    known = [free for free in (_of_machine(root), *_of_groups(root)) if free is not None]
    return max(0, min(known)) if known else None


def _of_machine(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, macOS
        return None


def _of_groups(root: Path) -> Iterator[int]:
    """What is left in each group with a limit that this process is in: its own, and those around it."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        version = 1 if "memory" in controllers.split(",") else 2
        if version == 2 and controllers:
            continue
        below, *names = GROUPS[version]
        top = root / "sys/fs/cgroup" / below
        own = top / path.strip("/")  # in a container the path may be the host's: then only the top is there
        for group in (own, *own.parents):
            left = _left(group, *names)
            if left is not None:
                yield left
            if group == top:
                break


def _left(group: Path, limit: str, used: str, cache: str) -> int | None:
    """None for a group that is not there, or has no limit."""
    most, now = ("".join(_lines(group / name)) for name in (limit, used))
    if not most.isdecimal() or not now.isdecimal():  # `max`
        return None
    cached = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith(f"{cache} ")]
    return int(most) - int(now) + sum(cached)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
