"""Full disks, folders that cannot be written, losses that explode, killed workers, no memory."""

import errno
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s9.cli.compose import compose_config
from s9.sweeps.jobs import SweepFolder
from s9.tracking.folder import RunFolder
from s9.training import checkpoint
from tests.doors import (
    HERE,
    RUN,
    SHORT,
    SMALL,
    Done,
    checkpoints,
    children,
    command,
    error_line,
    left,
    metrics,
    nobody_left,
    run,
    started,
    status,
    until,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")

EPOCHS = 30
LONG = [*SMALL, HERE, f"trainer.epochs={EPOCHS}", "trainer.steps_per_epoch=2"]


# A full disk


class Disk:
    """A run's folder on a disk of its own (a small tmpfs), or where none can be mounted a limit on new files."""

    def __init__(self, folder: Path):
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True)
        self.mounted = done.returncode == 0

    def fill(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        if self.mounted:
            with self.filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))
        else:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (8192, hard))  # train.log and metrics.jsonl may grow
        os.kill(pid, signal.SIGCONT)

    def empty(self, pid: int) -> None:
        if self.mounted:
            self.filler.unlink()
        else:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)


class Filled:
    """A run whose disk was full from its first checkpoint on: to its end, or only for some epochs."""

    def __init__(self, folder: Path, stays_full: bool):
        self.folder, self.disk = folder / RUN, Disk(folder / RUN)
        try:
            with started(folder, command("train", *LONG)) as door:
                until(lambda: checkpoints(self.folder))
                self.disk.fill(door.pid)
                whole = [path for path in checkpoints(self.folder) if path.with_suffix(".sha256").exists()]
                self.kept = {path: path.read_bytes() for path in whole}
                door.has_said("training continues")
                until(lambda: "epoch" in door.said.partition("training continues")[2])  # one that ended on a full disk
                self.still = {path: path.read_bytes() for path in checkpoints(self.folder)}
                if not stays_full:
                    self.disk.empty(door.pid)
                self.done = door.end()
        except BaseException:
            self.disk.close()
            raise


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    filled = Filled(tmp_path_factory.mktemp("full"), stays_full=True)
    yield filled
    filled.disk.close()


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    filled = Filled(tmp_path_factory.mktemp("mended"), stays_full=False)
    yield filled
    filled.disk.close()


def test_a_checkpoint_that_finds_no_room_is_a_warning_that_names_the_last_one(full: Filled) -> None:
    wanted = r"checkpoint (\S+) cannot be written \((.*?)\); (\S+) is the last; training continues"
    said = re.search(wanted, full.done.stdout)
    assert said and said[2] in (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG))
    assert said[3].startswith(f"{RUN}/checkpoints/step-")


def test_the_checkpoint_before_stays_whole_on_a_full_disk(full: Filled) -> None:
    assert full.kept and full.kept.items() <= full.still.items()
    newest = checkpoint.found(RunFolder(full.folder).checkpoints)[0]
    assert checkpoint.read(newest)["position"]["step"] > 0


def test_training_goes_on_to_its_last_epoch_on_a_full_disk(full: Filled) -> None:
    assert f"epoch {EPOCHS}/{EPOCHS}: " in full.done.stdout


def test_a_full_disk_fails_the_run_at_its_final_save_in_one_line(full: Filled) -> None:
    assert re.match(rf"error: {RUN}/weights/final\.safetensors: ", error_line(full.done, 1))


def test_a_disk_that_has_room_again_before_the_end_costs_the_run_nothing(mended: Filled) -> None:
    assert (mended.done.returncode, mended.done.stderr) == (0, "")
    assert status(mended.folder)["state"] == "done"


def test_the_metrics_are_whole_where_the_disk_was_full_for_a_while(mended: Filled) -> None:
    assert [line["epoch"] for line in metrics(mended.folder)] == list(range(1, EPOCHS + 1))


# Folders that cannot be written


@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
@pytest.mark.parametrize("place", ["/proc/nope", "file/below"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, place: str, sweep: bool) -> None:
    (tmp_path / "file").write_text("not a folder")
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    done = run(tmp_path, "train", *(["-m", "seed=0,1"] if sweep else []), *SHORT, f"{key}={place}")
    said = error_line(done, 2)
    assert place in said and f"{key}=" in said
    assert done.stdout == "" and {path.name for path in tmp_path.iterdir()} <= {"file", ".config"}


@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_a_folder_on_a_read_only_disk_is_one_line(tmp_path: Path, sweep: bool) -> None:
    (tmp_path / RUN).mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path / RUN], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        place = ["-m", "seed=0,1", f"hydra.sweep.dir={RUN}"] if sweep else [HERE]
        assert os.strerror(errno.EROFS) in error_line(run(tmp_path, "train", *place, *SHORT), 2)
    finally:
        subprocess.run(["umount", tmp_path / RUN], check=True)


@pytest.mark.parametrize("asked", [["resume=run"], [*SHORT, HERE, "resume=auto"]], ids=["folder", "auto"])
def test_going_on_in_a_folder_on_a_read_only_disk_is_one_line(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / RUN).mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / RUN], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        folder = RunFolder(tmp_path / RUN)
        folder.write_config(compose_config(SHORT))
        folder.status.write_text('{"state": "interrupted", "started": "2026-01-01T00:00:00Z"}')
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / RUN], check=True)
        assert os.strerror(errno.EROFS) in error_line(run(tmp_path, "train", *asked), 2)
    finally:
        subprocess.run(["umount", tmp_path / RUN], check=True)


def test_a_refused_run_leaves_files_that_were_there(tmp_path: Path) -> None:
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "train.log").write_text("precious\n")
    error_line(run(tmp_path, "train", *SHORT, HERE, "data=folder", "data.root=nowhere"), 2)
    assert [path.name for path in (tmp_path / RUN).iterdir()] == ["train.log"]
    assert (tmp_path / RUN / "train.log").read_text().startswith("precious\n")


def test_best_weights_that_cannot_be_written_are_not_those_of_another_epoch(tmp_path: Path) -> None:
    """A folder stands where their file is to be."""
    RunFolder(tmp_path / RUN).best.mkdir(parents=True)
    done = run(tmp_path, "train", *SHORT, HERE)
    assert done.returncode == 0 and "the best weights cannot be written" in done.stdout
    assert not RunFolder(tmp_path / RUN).best.is_file()


# A loss that is not finite


@pytest.fixture(scope="module")
def exploded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("exploded")
    wild = ["scheduler=constant", "optimizer.lr=1e30", "trainer.save_every=0"]
    return folder / RUN, run(folder, "train", *SMALL, HERE, *wild)


def test_a_loss_that_explodes_names_epoch_step_lr_and_the_last_good_checkpoint(exploded: tuple[Path, Done]) -> None:
    folder, done = exploded
    said = re.search(r"epoch 1, step \d+, (near )?lr 1e\+30; .*last good checkpoint is (\S+)$", error_line(done, 1))
    there = [f"{RUN}/{path.relative_to(folder)}" for path in checkpoints(folder)]
    assert said and said[2] == (there[-1] if there else "none")


def test_no_file_of_a_run_that_exploded_has_weights_that_are_not_finite(exploded: tuple[Path, Done]) -> None:
    folder, _ = exploded
    states = [checkpoint.read(path)["learner"]["model"] for path in checkpoints(folder)]
    states += [load_file(path) for path in folder.rglob("*.safetensors")]
    assert all(torch.isfinite(value).all() for state in states for value in state.values())


def test_a_failure_is_whole_in_train_log_and_in_error_txt(exploded: tuple[Path, Done]) -> None:
    folder, _ = exploded
    for name in ("train.log", "error.txt"):
        text = (folder / name).read_text()
        assert "Traceback (most recent call last)" in text and "NonFiniteLossError: loss is" in text, name


def test_status_json_names_the_reason_and_the_file_that_has_all_of_it(exploded: tuple[Path, Done]) -> None:
    folder, done = exploded
    said = status(folder)
    assert (said["state"], said["log"]) == ("failed", "error.txt")
    assert done.stderr == f"error: {said['reason']}\n"


# Killed workers, no memory


def test_a_killed_data_worker_is_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    workers = ["data.loader=workers", "data.workers=2", "trainer.epochs=5000"]
    with started(tmp_path, command("train", *SMALL, HERE, *workers)) as door:
        door.has_said("epoch 1/")
        os.kill(children(door.pid)[-1], signal.SIGKILL)
        said = error_line(door.end(), 1)
        assert "a data worker was killed" in said and "data.workers=2" in said
        assert nobody_left(tmp_path), left(tmp_path)
    assert status(tmp_path / RUN)["state"] == "failed"


def address_space(pid: int) -> int:
    found = re.search(r"VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("batch_size", [1200])
def test_a_lack_of_memory_names_the_batch_size_and_what_to_set(tmp_path: Path, batch_size: int) -> None:
    wide = [f"model.blocks.C1.conv{layer}.channels=256" for layer in (1, 2)]
    large = [f"trainer.batch_size={batch_size}", "trainer.epochs=1000"]
    with started(tmp_path, command("train", *SMALL, HERE, *wide, *large)) as door:
        door.has_said("W&B disabled")
        # One feature map is 315 MB. With less room than that, but this much, what fails is a map and not the memory
        # of a new thread, for which the C library ends the process by itself.
        room = address_space(door.pid) + 2**27
        resource.prlimit(door.pid, resource.RLIMIT_AS, (room, room))
        said = error_line(door.end(), 1)
    assert said.startswith(f"error: out of memory with trainer.batch_size={batch_size}; set trainer.batch_size=600")
    assert status(tmp_path / RUN)["state"] == "failed"


# A sweep


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failed_job_and_each_status_is_right(tmp_path: Path) -> None:
    done = run(tmp_path, "train", "-m", *SHORT, "hydra.sweep.dir=sweep", "optimizer.lr=1e30,0.02")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr == "error: 1 of 2 jobs are not done: 1 failed\n"
    _, rows = SweepFolder(tmp_path / "sweep").rows()
    assert [(row.values["optimizer.lr"], row.state) for row in rows] == [("1e+30", "failed"), ("0.02", "done")]
    first, second = (status(tmp_path / "sweep" / row.job) for row in rows)
    assert (first["state"], second["state"]) == ("failed", "done")
    assert first["reason"] in done.stdout and "reason" not in second
    assert (first["group"], second["group"]) == ("sweep", "sweep")


@pytest.mark.slow
def test_a_sweep_that_is_cut_says_of_each_job_how_it_is_and_a_resumed_one_takes_its_line(tmp_path: Path) -> None:
    long = [*SHORT, "trainer.epochs=500", "trainer.save_every=0"]
    sweep = SweepFolder(tmp_path / "sweep")
    with started(tmp_path, command("train", "-m", *long, "hydra.sweep.dir=sweep", "seed=7,8")) as door:
        until(lambda: list(sweep.path.glob("*/checkpoints/*.pt")))
        os.kill(door.pid, signal.SIGTERM)
        assert door.end().returncode == 143
    stood = {line["seed"]: line["status"] for line in sweep.read_summary()}
    assert stood == {"7": "cut", "8": "missing"}
    (job,) = (line["job"] for line in sweep.read_summary() if line["seed"] == "7")
    assert RunFolder(sweep.path / job).config.exists()
    with started(tmp_path, command("train", f"resume=sweep/{job}")) as door:
        until(lambda: status(sweep.path / job).get("starts") == 2)
        os.kill(door.pid, signal.SIGINT)
        assert door.end().returncode == 130
    (row,) = (row for row in sweep.rows()[1] if row.job == job)
    assert (row.state, row.reason, row.values) == ("cut", "SIGINT", {"seed": "7"})
