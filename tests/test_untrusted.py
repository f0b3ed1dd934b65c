"""Runs that somebody else may have written: nothing of them is executed, and what does not fit is one line."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from s9 import evaluate, report
from s9.config import components
from s9.system.errors import UserError
from s9.tracking import figures
from s9.tracking.folder import RunFolder
from s9.training import checkpoint
from tests.doors import HERE, RUN, SHORT, Done, checkpoints, error_line, run, status


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    done = run(folder, "train", *SHORT, HERE)
    assert done.returncode == 0, done.stderr
    return folder / RUN


@pytest.fixture
def received(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run that has all its epochs, yet says that it was interrupted."""
    folder = tmp_path / RUN
    shutil.copytree(trained, folder)
    (folder / "status.json").write_text(json.dumps(status(folder) | {"state": "interrupted"}))
    return folder


def resume(folder: Path) -> Done:
    return run(folder.parent, "train", f"resume={folder.name}")


def refused(door: Callable[[list[str]], int | None], folder: Path) -> str:
    """What a door says of a run, in one line."""
    with pytest.raises(UserError) as error:
        door([f"run={folder}"])
    assert "\n" not in str(error.value)
    return str(error.value)


# Checkpoints and arrays


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def write_payload(run_folder: Path, marker: Path) -> Path:
    """A checkpoint newer than the run's own, with a right sha256 and a payload."""
    content = checkpoint.read(checkpoints(run_folder)[-1]) | {"extra": Payload(marker)}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = RunFolder(run_folder).checkpoints / "step-00009999.pt"
    path.write_bytes(buffer.getvalue())
    path.with_suffix(".sha256").write_text(f"{hashlib.sha256(buffer.getvalue()).hexdigest()}  {path.name}\n")
    return path


def test_a_checkpoint_with_a_payload_is_refused_and_the_payload_does_not_run(received: Path, tmp_path: Path) -> None:
    path = write_payload(received, tmp_path / "ran")
    with pytest.raises(ValueError, match=r"^not a checkpoint: ") as error:
        checkpoint.read(path)
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # the payload does run where pickles are allowed


def test_a_run_resumes_from_the_checkpoint_before_one_with_a_payload(received: Path, tmp_path: Path) -> None:
    path = write_payload(received, tmp_path / "ran")
    done = resume(received)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{path.name} is damaged" in done.stdout and "resumes from run/checkpoints/step-00000002.pt" in done.stdout
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["samples", "predictions"])
def test_arrays_with_a_payload_do_not_run_it(received: Path, tmp_path: Path, name: str) -> None:
    folder = RunFolder(received)
    path: Path = getattr(folder, name)
    arrays: dict[str, Any] = folder.read_arrays(path)
    first = next(iter(arrays))
    np.savez(path, **(arrays | {first: np.array([Payload(tmp_path / "ran")], dtype=object)}))
    assert path.name in refused(report.main, received)
    assert not (tmp_path / "ran").exists()


# Configurations

OUTSIDE = ["os.system", "subprocess.Popen", "torch.load"]
THROUGH = ["torch.optim.os.system", "s9.training.loop.torch.load"]  # what allowed modules themselves import


def rewrite(folder: Path, old: str, new: str) -> None:
    path = RunFolder(folder).config
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("target", OUTSIDE)
def test_evaluate_refuses_a_stored_target_outside_the_allow_list(received: Path, target: str) -> None:
    rewrite(received, "torch.optim.SGD", target)
    assert refused(evaluate.main, received).startswith(f"optimizer._target_={target}: ")


@pytest.mark.parametrize("target", THROUGH)
def test_evaluate_imports_no_target(received: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(received, "torch.optim.SGD", target)
    monkeypatch.delattr(components, "importlib")
    assert evaluate.main([f"run={received}"]) == 0


@pytest.mark.parametrize(
    ("target", "said"), [("os.system", "must begin with"), *((target, "there is no module") for target in THROUGH)]
)
def test_resume_refuses_a_stored_target_outside_the_allow_list(received: Path, target: str, said: str) -> None:
    rewrite(received, "torch.optim.SGD", target)
    assert error_line(resume(received), 2).startswith(f"error: optimizer._target_={target}: {said}")


def keep_curves_only(path: Path) -> None:
    """Leaves one figure to be drawn: all of them take seconds."""
    RunFolder(path).samples.unlink()
    RunFolder(path).predictions.unlink()


def test_report_reads_no_configuration(received: Path) -> None:
    keep_curves_only(received)
    rewrite(received, "torch.optim.SGD", "os.system")
    report.main([f"run={received}"])


@pytest.mark.parametrize(
    "content", ["!!python/object/apply:os.system ['touch ran']", "data: [", "just text", "", "\x00", "- a\n- b"]
)
def test_a_stored_configuration_that_is_none_is_one_line(received: Path, content: str) -> None:
    RunFolder(received).config.write_text(content)
    assert "config" in refused(evaluate.main, received)
    assert not (received / "ran").exists()


def test_a_last_line_of_the_metrics_that_was_cut_short_is_left_out(received: Path) -> None:
    folder = RunFolder(received)
    whole = folder.read_metrics()
    with folder.metrics.open("a") as file:
        file.write('{"epoch": 2, "tra')
    assert folder.read_metrics() == whole
    keep_curves_only(received)
    report.main([f"run={received}"])


def test_a_damaged_line_of_the_metrics_is_one_line(received: Path) -> None:
    with RunFolder(received).metrics.open("a") as file:
        file.write('{"epoch": 2, "tra\n{"epoch": 3}\n')
    keep_curves_only(received)
    assert RunFolder(received).metrics.name in refused(report.main, received)


# Weights


def test_weights_of_another_network_are_refused(received: Path) -> None:
    weights = RunFolder(received).final
    state = load_file(weights)
    save_file({name: value[..., :1].contiguous() for name, value in state.items() if value.ndim}, weights)
    assert "of another network" in refused(evaluate.main, received)


def test_weights_that_are_a_pickle_are_refused_and_not_run(received: Path, tmp_path: Path) -> None:
    torch.save({"extra": Payload(tmp_path / "ran")}, RunFolder(received).final)
    assert "cannot be read as safetensors" in refused(evaluate.main, received)
    assert not (tmp_path / "ran").exists()


# Names. Figures are PNG files and nothing here renders HTML; what could go wrong is matplotlib's own markup.

NAMES = ["<script>alert(1)</script>", "<img src=x>", "$x^{$", "$\\frac$", "a $5 b $", "%s{0}\\n", "line\nline", "кошка"]


def test_a_class_name_with_markup_is_drawn_as_text(trained: Path, tmp_path: Path) -> None:
    folder = RunFolder(trained)
    for path in (folder.metrics, folder.summary):
        shutil.copy(path, tmp_path)
    for path, key in ((folder.samples, "names"), (folder.predictions, "class_names")):
        arrays: dict[str, Any] = folder.read_arrays(path)
        np.savez(tmp_path / path.name, **(arrays | {key: np.resize(np.array(NAMES), len(arrays[key]))}))
    drawn = figures.draw_all(RunFolder(tmp_path))
    assert len(drawn) == 4
    for path in drawn:
        with Image.open(path) as picture:
            assert picture.format == "PNG"


@pytest.mark.slow
def test_a_run_on_classes_and_files_with_markup_ends_well(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name, colour in (("<b>$x^{$ 猫", "red"), ("\"'\n;--", "green")):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (8, 8), colour).save(tmp_path / "pets" / split / name / f"$<i>{number}$.png")
    folder = ["data=folder", "data.root=pets", "data.val_size=4", "data.duplicates=keep", "trainer.batch_size=4"]
    done = run(tmp_path, "train", *SHORT, HERE, *folder)
    assert (done.returncode, done.stderr) == (0, "")
