"""Free memory: the machine's, or what is left in the control groups of the process, whichever is smaller."""

from pathlib import Path

import pytest
import torch

from s9.system.memory import free_host_memory, free_memory

MACHINE = "MemTotal:       9000 kB\nMemFree:         100 kB\nMemAvailable:   4000 kB\n"
AVAILABLE = 4000 * 1024
Files = dict[str, str]  # from names to contents


def system(root: Path, in_groups: str, **files: Files) -> Path:
    """A made-up proc and sys. in_groups: /proc/self/cgroup; files: those of each group, whose name has _ for /."""
    for path, content in ((root / "proc/meminfo", MACHINE), (root / "proc/self/cgroup", in_groups)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for group, texts in files.items():
        folder = root / "sys/fs/cgroup" / group.replace("_", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(f"{text}\n")
    return root


def v2(limit: object, used: int, cache: int = 0) -> Files:
    stat = f"anon 5\ninactive_file {cache}\nactive_file 9"
    return {"memory.max": f"{limit}", "memory.current": f"{used}", "memory.stat": stat}


def v1(limit: int, used: int, cache: int = 0) -> Files:
    stat = f"inactive_file 1\ntotal_inactive_file {cache}"
    return {"memory.limit_in_bytes": f"{limit}", "memory.usage_in_bytes": f"{used}", "memory.stat": stat}


def test_without_groups_the_memory_is_the_machines(tmp_path: Path) -> None:
    assert free_host_memory(system(tmp_path, "0::/\n")) == AVAILABLE


def test_a_group_leaves_its_limit_without_what_it_uses(tmp_path: Path) -> None:
    assert free_host_memory(system(tmp_path, "0::/job\n", job=v2(1000, 300))) == 700


def test_the_page_cache_of_a_group_is_free(tmp_path: Path) -> None:
    assert free_host_memory(system(tmp_path, "0::/job\n", job=v2(1000, 300, cache=200))) == 900


def test_a_group_without_a_limit_leaves_the_machines_memory(tmp_path: Path) -> None:
    assert free_host_memory(system(tmp_path, "0::/job\n", job=v2("max", 300))) == AVAILABLE


def test_a_limit_above_the_machines_memory_says_nothing(tmp_path: Path) -> None:
    assert free_host_memory(system(tmp_path, "0::/job\n", job=v2(10**12, 300))) == AVAILABLE


def test_the_limit_of_a_group_around_counts(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/user/job\n", user=v2(800, 500), user_job=v2("max", 300))
    assert free_host_memory(root) == 300


def test_a_group_that_uses_more_than_its_limit_leaves_nothing(tmp_path: Path) -> None:
    assert free_host_memory(system(tmp_path, "0::/job\n", job=v2(1000, 1300))) == 0


def test_the_older_groups_are_read_too(tmp_path: Path) -> None:
    root = system(tmp_path, "5:cpu,cpuacct:/other\n4:memory:/job\n0::/\n", memory_job=v1(1000, 600, cache=50))
    assert free_host_memory(root) == 450


def test_in_a_container_with_the_hosts_path_the_top_group_counts(tmp_path: Path) -> None:
    root = system(tmp_path, "4:memory:/docker/abc\n", memory=v1(1000, 600))
    assert free_host_memory(root) == 400


def test_a_system_without_proc_tells_its_free_pages_or_nothing(tmp_path: Path) -> None:
    free = free_host_memory(tmp_path)
    assert free is None or free > 2**20


def test_the_free_memory_of_this_machine_is_more_than_a_megabyte() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is None or free > 2**20


@pytest.mark.gpu
def test_the_free_memory_of_a_gpu_is_less_than_all_of_it() -> None:
    device = torch.device("cuda")
    free = free_memory(device)
    assert free is not None and 0 < free <= torch.cuda.get_device_properties(device).total_memory
