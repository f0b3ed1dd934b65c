"""Writes a trained network as a file that works without s9, once that file gives what the network gives."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from s9.inference.classifier import load
from s9.inference.export_images import Images, images_of, made_up, pixels, spread
from s9.inference.export_network import (
    BATCH,
    Logits,
    about_file,
    archive_logits,
    as_archive,
    as_input,
    exported_program,
)
from s9.inference.export_table import speeds
from s9.inference.scored_images import ChosenData
from s9.system.errors import UserError
from s9.system.files import write_whole

TOLERANCE = 1e-4  # of the logits
ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What s9.export is asked for.

    to: onnx or torch_export. file: None: named after the run, in the current folder. check: how many images the file is
    checked on; 0: none. data: chooses the images; None: those of the run.
    """

    run: str
    to: str
    file: Path | None
    weights: str
    preprocessing: bool
    int8: bool
    check: int
    measure: bool
    data: ChosenData | None


class Export:
    """One network on its way into files.

    Args:
        say: is given each line that the user is to read, as soon as it is known.

    Raises:
        UserError: the run cannot be read, a package is missing, or the file cannot be written.
    """

    def __init__(self, asked: Asked, say: Callable[[str], object]):
        self.asked, self.say = asked, say
        if asked.to == "onnx":
            _refuse_missing_packages()
        self.classifier = load(asked.run, weights=asked.weights, device="cpu")
        self.about = about_file(self.classifier, asked.preprocessing)
        self.file = _writable(asked.file or Path(self.about["run"] + ENDINGS[asked.to]))

    def run(self) -> bool:
        """Writes the files that are asked for. Returns False where a file does not give what the network gives.

        Raises:
            UserError: the images cannot be read, or a file cannot be written.
        """
        asked = self.asked
        images = Images(test=None, train=None)
        if asked.check or asked.int8:
            images = images_of(self.classifier, asked.weights, asked.data, with_train=asked.int8)
        self.say(f"exporting {self.classifier.name} ...")
        content, compute = self.float32()
        if not self.is_right(compute, images):
            self.say(f"{self.file}: not written; check=0 writes it all the same")
            return False
        self.write(self.file, content, "float32")
        files = {"onnxruntime" if asked.to == "onnx" else "torch.export": (len(content), compute)}
        if asked.int8:
            files["onnxruntime int8"] = self.int8(content, compute, images)
        if asked.measure:
            self.say("measuring ...")
            self.say(speeds(self.classifier, files, asked.preprocessing))
        return True

    def float32(self) -> tuple[bytes, Logits]:
        """The file's content, and what it computes once it is read again."""
        program = exported_program(self.classifier, self.asked.preprocessing)
        if self.asked.to == "torch_export":
            content = as_archive(program, self.about)
            return content, archive_logits(content)
        from s9.inference.export_onnx import as_onnx, onnx_logits

        content = as_onnx(program, self.about)
        return content, onnx_logits(content)

    def is_right(self, compute: Logits, images: Images) -> bool:
        """Whether the file gives what the network gives in torch; says how far apart they are."""
        count = self.asked.check
        if not count:
            self.say("check=0: whether the file gives what torch gives is not checked")
            return True
        if images.test is None:
            squares, of = made_up(count, self.classifier.facts.image_size), "made-up images"
            self.say(f"the check takes made-up images, since the run's own cannot be read here ({images.why})")
        else:
            squares, of = pixels(images.test, spread(len(images.test), count)), "test images"
            if len(squares) < count:
                self.say(f"check={count}: test has only {len(squares):,} images")
        parts = [squares[start : start + BATCH] for start in range(0, len(squares), BATCH)]
        with torch.no_grad():
            theirs = np.concatenate([self.classifier.model(self.classifier.normalised(part)).numpy() for part in parts])
        return agree(self.logits(compute, parts), theirs, of, self.say)

    def logits(self, compute: Logits, parts: Iterable[np.ndarray]) -> np.ndarray:
        """What a file computes from uint8 (N, H, W, 3), for all parts together."""
        return np.concatenate([compute(self.inputs(part)) for part in parts])

    def inputs(self, squares: np.ndarray) -> np.ndarray:
        return as_input(self.classifier, squares, self.asked.preprocessing)

    def int8(self, content: bytes, compute: Logits, images: Images) -> tuple[int, Logits]:
        """Writes the second file, and says its accuracy; its size and what it computes."""
        from s9.inference.export_onnx import onnx_logits
        from s9.inference.int8 import CALIBRATION, as_int8

        test, train = images.test, images.train
        assert test is not None and train is not None
        some = self.inputs(pixels(train, spread(len(train), CALIBRATION)))
        self.say(f"int8: calibrating on {len(some):,} images of train, scoring {len(test):,} of test twice ...")
        quantised = as_int8(content, self.about, some)
        compute_int8 = onnx_logits(quantised)
        batches = np.split(np.arange(len(test)), range(BATCH, len(test), BATCH))
        logits = [self.logits(by, (pixels(test, batch) for batch in batches)) for by in (compute, compute_int8)]
        scored = {f"all {len(test):,}": np.arange(len(test))}
        if 0 < self.asked.check < len(test):
            scored = {f"the {self.asked.check:,} checked": spread(len(test), self.asked.check), **scored}
        for of, index in scored.items():
            self.say(compared([of_file[index].argmax(1) for of_file in logits], test.labels[index], of))
        file = self.file.with_name(f"{self.file.stem}_int8{self.file.suffix}")
        self.write(file, quantised, "int8")
        return len(quantised), compute_int8

    def write(self, file: Path, content: bytes, precision: str) -> None:
        try:
            write_whole(file, content)
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error.strerror or error})") from None
        takes = "uint8 images, preprocessing inside" if self.asked.preprocessing else "normalised float32 images"
        self.say(f"{file}: {precision}, takes {takes}; {len(content):,} bytes")


def agree(ours: np.ndarray, theirs: np.ndarray, of: str, say: Callable[[str], object]) -> bool:
    """Whether both logits (N, num_classes) have the same top 1 everywhere and differ by rounding alone."""
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    off = float(np.abs(ours - theirs).max())
    holds = same == len(ours) and off <= TOLERANCE  # NaN is not
    found = f"same top 1 as torch for {same:,} of {len(ours):,} {of}; logits differ by at most {off:.1e}"
    say(f"check {'passed' if holds else 'FAILED'}: {found} (allowed: {TOLERANCE:.0e})")
    return holds


def compared(preds: list[np.ndarray], labels: np.ndarray, of: str) -> str:
    """A line on the predictions (N,) of the float32 file and the int8 file for the test images named by `of`."""
    float32, int8 = (f"{100 * (of_file == labels).mean():.2f} %" for of_file in preds)
    same = int((preds[0] == preds[1]).sum())
    return f"accuracy on {of} test images: int8 {int8}, float32 {float32}; the same class for {same:,}"


def _refuse_missing_packages() -> None:
    if any(find_spec(package) is None for package in PACKAGES):
        raise UserError("to=onnx: needs onnx and onnxruntime: pip install 's9[export]'")


def _writable(file: Path) -> Path:
    """The path, once it is clear that its folder takes a file of this name: exporting takes a while."""
    file = file.expanduser()
    if file.is_dir():
        raise UserError(f"file={file}: is a folder; give the path of a file")
    if not file.parent.is_dir():
        raise UserError(f"file={file}: there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"file={file}: {file.parent} cannot be written")
    return file
