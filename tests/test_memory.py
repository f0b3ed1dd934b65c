"""A data set on disk may be larger than memory: decoding and training hold a part of it at a time."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT

FEW, IMAGES, PIXELS = 1200, 12_000, 128  # few: more than are decoded at a time
MEGABYTES = (IMAGES - FEW) * 3 * PIXELS**2 // 10**6  # 530: what the larger run would hold more as arrays

TRAINS = """
import json, sys, threading, time
from pathlib import Path
from s9.cli.compose import compose_config
from s9.data import loaders
from s9.data.sources import folder
from s9.models import s9net
from s9.runs import prepare
from s9.runs.run import train
from s9.tracking import figures
from s9.training import checkpoint, evaluation, loop

def anonymous():  # memory of its own, in MB; pages of a mapped file are the kernel's, who takes them back at need
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) // 1000

peak, stage, load = {}, "imports", prepare.load_images

def watch():
    while True:
        peak[stage] = max(peak.get(stage, 0), anonymous())
        time.sleep(0.005)

def note_load(*arguments):
    global stage
    stage = "decoding"
    data = load(*arguments)
    stage = "training"
    return data

config = compose_config(sys.argv[2:])
prepare.load_images = note_load
threading.Thread(target=watch, daemon=True).start()
time.sleep(0.1)
train(config, Path(sys.argv[1]))
print(json.dumps(peak))
"""


def peaks(folder: Path, images: int) -> dict[str, int]:
    """MB at most that a run which decodes and trains held: with what it imports, while decoding, while training."""
    for name, colour in (("red", (200, 0, 0)), ("green", (0, 200, 0))):
        file = io.BytesIO()
        Image.new("RGB", (PIXELS, PIXELS), colour).save(file, "PNG")
        for split, count in (("train", images // 2), ("test", 2)):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                (folder / "images" / split / name / f"{number}.png").write_bytes(file.getvalue())
    overrides = [
        *(
            "data=folder",
            f"data.root={folder / 'images'}",
            f"data.cache={folder / 'cache'}",
            "data.val_size=0",
            "data.duplicates=keep",
        ),
        *(f"data.image_size={PIXELS}", "data.loader=workers", "data.workers=1", "aug=basic", "model=strided"),
        *("trainer.epochs=1", "trainer.steps_per_epoch=2", "trainer.batch_size=4", "wandb=disabled"),
    ]
    (folder / "run").mkdir()
    command = [sys.executable, "-c", TRAINS, str(folder / "run"), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    for file_ in (folder / "cache").glob("*/*.npy"):
        file_.unlink()  # pytest keeps the folders of the last runs
    return held


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, int]]:
    return peaks(tmp_path_factory.mktemp("few"), FEW), peaks(tmp_path_factory.mktemp("many"), IMAGES)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc"),
]


@pytest.mark.parametrize("stage", ["decoding", "training"])
def test_ten_times_the_images_on_disk_take_a_small_part_of_their_size_in_memory(
    few_and_many: tuple[dict[str, int], dict[str, int]], stage: str
) -> None:
    few, many = few_and_many  # what the training itself takes, with what it imports, depends on the processor
    assert many[stage] - few[stage] < 0.2 * MEGABYTES, (few, many)
