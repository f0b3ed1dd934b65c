"""s9.export: the file gives what the network gives, works without s9, and says what it holds."""

import io
import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from s9 import export as door
from s9.cli.compose import compose_config
from s9.data.keys import seed_everything
from s9.data.sources.cifar10 import FACTS
from s9.inference import export
from s9.inference.classifier import Classifier, load
from s9.inference.export import Asked, Export, agree
from s9.inference.export_images import images_of, made_up
from s9.inference.export_network import (
    ABOUT,
    Logits,
    about_file,
    archive_logits,
    as_archive,
    as_input,
    exported_program,
)
from s9.inference.export_onnx import as_onnx, onnx_logits
from s9.models.s9net import S9Net
from s9.system.compute import Compute
from s9.system.errors import UserError
from tests.awkward_folder import picture
from tests.conftest import ROOT
from tests.doors import SMALL, Done, run

MODELS = sorted(file.stem for file in (ROOT / "conf" / "model").glob("*.yaml"))
# Sigmoid: silu is x * sigmoid(x).
ORDINARY = {"Conv", "Relu", "Add", "ReduceMean", "Gemm", "Cast", "Sub", "Mul", "Gelu", "Sigmoid"}
POOLED = {"MaxPool", "BatchNormalization"}  # a norm after a pooling cannot become part of the convolution
INT8_MARGIN = 0.05  # of the accuracy, on 360 digits


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, which has learned the digits."""
    place = tmp_path_factory.mktemp("place")
    how = ("trainer.epochs=8", "optimizer.lr=0.1", "hydra.run.dir=run", "trainer.save_every=0")
    assert run(place, "train", *SMALL, *how).returncode == 0
    return place


@pytest.fixture(scope="module")
def done(place: Path) -> Done:
    """What the command says that writes digits.onnx and digits_int8.onnx."""
    how = ("preprocessing=true", "int8=true", "check=100", "file=digits.onnx")
    return run(place, "export", "run=run", "to=onnx", *how)


@pytest.fixture(scope="module")
def classifier(place: Path) -> Classifier:
    return load(place / "run", device="cpu")


@pytest.fixture(scope="module")
def archive(classifier: Classifier) -> bytes:
    """A .pt2 file that takes normalised images."""
    return as_archive(exported_program(classifier, False), about_file(classifier, False))


def logits_of(classifier: Classifier, squares: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return classifier.model(classifier.normalised(squares)).numpy()


def is_same(compute: Logits, classifier: Classifier, count: int, *, preprocessing: bool) -> bool:
    squares = made_up(count, classifier.facts.image_size)
    found = compute(as_input(classifier, squares, preprocessing))
    return agree(found, logits_of(classifier, squares), "", lambda line: None)


def metadata(file: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def asked(place: Path, **changes: Any) -> Asked:
    usual = Asked(
        run=str(place / "run"),
        to="onnx",
        file=None,
        weights="final",
        preprocessing=True,
        int8=False,
        check=0,
        measure=False,
        data=None,
    )
    return replace(usual, **changes)


def test_the_command_says_that_the_check_passed_and_what_it_has_written(done: Done) -> None:
    assert done.returncode == 0
    assert re.search(r"^check passed: same top 1 as torch for 100 of 100 test images; logits differ", done.stdout, re.M)
    assert re.search(
        r"^digits.onnx: float32, takes uint8 images, preprocessing inside; [\d,]+ bytes$", done.stdout, re.M
    )
    assert re.search(r"^digits_int8.onnx: int8, ", done.stdout, re.M)


def test_nothing_of_the_exporters_reaches_the_screen(done: Done) -> None:
    assert done.stderr == ""
    starts = {line.split()[0] for line in done.stdout.splitlines()}
    assert starts == {"exporting", "check", "digits.onnx:", "int8:", "accuracy", "digits_int8.onnx:"}


def test_the_int8_files_accuracy_is_near_that_of_float32(done: Done) -> None:
    line = next(line for line in done.stdout.splitlines() if line.startswith("accuracy on all"))
    int8, float32 = (float(found) / 100 for found in re.findall(r"([\d.]+) %", line))
    assert float32 > 0.5
    assert abs(int8 - float32) < INT8_MARGIN


def test_the_int8_file_is_of_int8(done: Done, place: Path) -> None:
    assert done.returncode == 0
    model = onnx.load(place / "digits_int8.onnx")
    kinds = Counter(onnx.TensorProto.DataType.Name(value.data_type) for value in model.graph.initializer)
    assert kinds["INT8"] > 3
    assert metadata(place / "digits_int8.onnx")["precision"] == "int8"


@pytest.mark.parametrize("count", [1, 3, 130])
def test_the_file_takes_any_number_of_images(done: Done, place: Path, classifier: Classifier, count: int) -> None:
    assert done.returncode == 0
    compute = onnx_logits((place / "digits.onnx").read_bytes())
    assert is_same(compute, classifier, count, preprocessing=True)


def test_without_preprocessing_the_file_takes_normalised_images(classifier: Classifier) -> None:
    content = as_onnx(exported_program(classifier, False), about_file(classifier, False))
    assert is_same(onnx_logits(content), classifier, 20, preprocessing=False)


def test_the_metadata_has_all_that_a_user_without_s9_must_know(done: Done, place: Path, classifier: Classifier) -> None:
    assert done.returncode == 0
    about, facts = metadata(place / "digits.onnx"), classifier.facts
    assert json.loads(about["class_names"]) == list(facts.class_names)
    assert [json.loads(about[key]) for key in ("mean", "std")] == [list(facts.mean), list(facts.std)]
    assert json.loads(about["image_size"]) == facts.image_size
    assert json.loads(about["metrics"]) == classifier.metrics
    assert {"resize", "input", "output", "s9_version", "run", "preprocessing"} <= about.keys()


def test_no_path_of_the_machine_is_in_a_file(done: Done, place: Path, archive: bytes) -> None:
    assert done.returncode == 0
    with zipfile.ZipFile(io.BytesIO(archive)) as parts:
        contents = [parts.read(name) for name in parts.namelist()]
    contents += [(place / f"digits{which}.onnx").read_bytes() for which in ("", "_int8")]
    assert [path for path in (str(ROOT), sys.prefix, str(place)) if any(path.encode() in c for c in contents)] == []


def test_the_lines_of_the_help_classify_a_picture_without_s9(done: Done, place: Path, classifier: Classifier) -> None:
    assert done.returncode == 0
    picture(1, (90, 140, 60)).save(place / "cat.jpg")
    _, _, lines = door.USAGE.partition("preprocessing=true\n  import")
    code = "import" + lines.replace("\n  ", "\n").replace("frontier.onnx", "digits.onnx")
    code += "\nimport sys; print('s9' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-I", "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [classifier(place / "cat.jpg").label, "False", "False"]


def test_the_page_has_the_lines_of_the_help() -> None:
    _, _, lines = door.USAGE.partition("preprocessing=true\n  import")
    page = (ROOT / "s9" / "inference" / "README.md").read_text()
    assert "import" + lines.replace("\n  ", "\n") in page.replace("\n\n", "\n")


def test_a_torch_export_file_gives_what_the_network_gives(archive: bytes, classifier: Classifier) -> None:
    compute = archive_logits(archive)
    assert [count for count in (1, 3, 130) if not is_same(compute, classifier, count, preprocessing=False)] == []


def test_a_torch_export_file_carries_the_metadata(archive: bytes, classifier: Classifier) -> None:
    found = {ABOUT: ""}
    torch.export.load(io.BytesIO(archive), extra_files=found)
    assert json.loads(json.loads(found[ABOUT])["class_names"]) == list(classifier.facts.class_names)


@pytest.mark.slow
def test_a_torch_export_file_loads_without_s9(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "digits.pt2").write_bytes(archive)
    code = "import sys, torch; print(torch.export.load('digits.pt2').module()(torch.zeros(5, 3, 32, 32)).shape)"
    code += "; print('s9' in sys.modules)"
    found = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["torch.Size([5, 10])", "False"]


def test_a_file_that_gives_something_else_is_not_written_and_the_exit_code_is_1(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 0.0)  # onnxruntime rounds otherwise than torch
    assert door.main([f"run={place / 'run'}", "to=onnx", f"file={tmp_path / 'x.onnx'}", "check=50"]) == 1
    assert "check FAILED: same top 1 as torch for 50 of 50 test images" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [[[1.0, 1.00009]], [[1.0, 0.9998]], [[float("nan"), 0.0]]])
def test_another_top_1_a_larger_difference_and_nan_are_told(other: list[list[float]]) -> None:
    lines: list[str] = []
    assert not agree(np.array(other), np.array([[1.0, 0.99999]]), "images", lines.append)
    assert lines[0].startswith("check FAILED: ")


def test_a_file_of_weights_alone_is_checked_on_made_up_images(place: Path, tmp_path: Path) -> None:
    weights, lines = tmp_path / "mine.safetensors", list[str]()
    weights.write_bytes((place / "run" / "weights" / "final.safetensors").read_bytes())
    how = asked(place, run=str(weights), check=20, to="torch_export", file=tmp_path / "mine.pt2")
    assert Export(how, lines.append).run()
    assert any(line.endswith("the run's own cannot be read here (a file of weights has no images)") for line in lines)
    assert any("20 of 20 made-up images" in line for line in lines)


def test_fewer_images_than_asked_for_are_said(place: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    assert Export(asked(place, check=5000, file=tmp_path / "x.onnx"), lines.append).run()
    assert any(re.match(r"check=5000: test has only \d+ images$", line) for line in lines)


def test_int8_is_calibrated_on_images_of_train(classifier: Classifier) -> None:
    found = images_of(classifier, "final", None, with_train=True)
    assert found.train is not None and found.test is not None
    assert {name.split()[0] for name in found.train.names} == {"train"}
    assert len(found.train) + len(found.test) == 1797  # what the run holds out as val is of train


def test_int8_without_images_is_refused(place: Path, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes((place / "run" / "weights" / "final.safetensors").read_bytes())
    how = asked(place, run=str(weights), int8=True, file=tmp_path / "mine.onnx")
    with pytest.raises(UserError, match=r"^a file of weights has no images; add data=folder data.root=<folder>$"):
        Export(how, print).run()


def test_a_missing_package_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"^to=onnx: needs onnx and onnxruntime: pip install 's9\[export\]'$"):
        Export(asked(place), print)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["to=tflite"], "to=tflite: must be onnx or torch_export"),
        (["to=torch_export", "int8=true"], "int8=true: for to=onnx alone, not to=torch_export"),
        (["check=some"], "check=some: must be a number of images; 0: no check"),
        (["check=0", "data=digits"], "data=digits: has no effect, since check=0 and int8=false look at no image"),
        (["fil=x"], "fil=x: there is no such key; did you mean file?"),
        (["file=nowhere/x.onnx"], "file=nowhere/x.onnx: there is no folder nowhere"),
        (["file=/"], "file=/: is a folder; give the path of a file"),
    ],
)
def test_a_mistake_is_one_line(place: Path, changed: list[str], said: str) -> None:
    defaults = [] if changed[0].startswith("to=") else ["to=onnx"]
    with pytest.raises(UserError) as error:
        door.main([f"run={place / 'run'}", *defaults, *changed])
    assert str(error.value) == said


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_network_becomes_ordinary_convolutions_that_give_the_same(name: str) -> None:
    seed_everything(0)
    model, host = S9Net(compose_config([f"model={name}"]).model, FACTS), Compute(torch.device("cpu"), torch.float32)
    made = Classifier(name, model, FACTS, "crop", compute=host, metrics={})
    with torch.no_grad():
        model.train()(made.normalised(made_up(100, 32)))  # statistics for the batch norms
    model.eval()
    content = as_onnx(exported_program(made, True), about_file(made, True))
    kinds = Counter(node.op_type for node in onnx.load_from_string(content).graph.node)
    pooled = any(isinstance(layer, torch.nn.MaxPool2d) for layer in model.modules())
    assert kinds.keys() <= (ORDINARY | POOLED if pooled else ORDINARY)
    assert kinds["Conv"] == sum(isinstance(layer, torch.nn.Conv2d) for layer in model.modules())
    assert is_same(onnx_logits(content), made, 50, preprocessing=True)


@pytest.mark.slow
def test_the_table_has_the_size_and_the_speed_of_every_form(place: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    assert Export(asked(place, check=20, int8=True, measure=True, file=tmp_path / "x.onnx"), lines.append).run()
    rows = [line.split(" | ") for line in lines[-1].splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows[1:]] == ["torch", "torch.compile", "onnxruntime", "onnxruntime int8"]
    assert int(rows[3][1].replace(",", "")) == (tmp_path / "x.onnx").stat().st_size
