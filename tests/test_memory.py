"""A data set on disk may be larger than memory: decoding and training hold a part of it at a time."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT

IMAGES, PIXELS = 12_000, 128  # 590 MB as arrays; with 256 pixels what a step of the network takes hides the rest
MEGABYTES = IMAGES * 3 * PIXELS**2 // 10**6

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


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """MB at most that a run which decodes and trains held: with what it imports, while decoding, while training."""
    folder = tmp_path_factory.mktemp("memory")
    for name, colour in (("red", (200, 0, 0)), ("green", (0, 200, 0))):
        file = io.BytesIO()
        Image.new("RGB", (PIXELS, PIXELS), colour).save(file, "PNG")
        for split, count in (("train", IMAGES // 2), ("test", 2)):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                (folder / "images" / split / name / f"{number}.png").write_bytes(file.getvalue())
    overrides = [
        *("data=folder", f"data.root={folder / 'images'}", f"data.cache={folder / 'cache'}", "data.val_size=0"),
        *(f"data.image_size={PIXELS}", "data.loader=workers", "data.workers=1", "aug=basic", "model=strided"),
        *("trainer.epochs=1", "trainer.steps_per_epoch=2", "trainer.batch_size=4", "wandb=disabled"),
    ]
    (folder / "run").mkdir()
    command = [sys.executable, "-c", TRAINS, str(folder / "run"), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    for file_ in (folder / "cache").glob("*/*.npy"):
        file_.unlink()  # pytest keeps the folders of the last runs
    return peaks


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc"),
]


@pytest.mark.parametrize("stage", ["decoding", "training"])
def test_a_run_from_disk_holds_a_part_of_the_images_only(peaks: dict[str, int], stage: str) -> None:
    # Up to 450 MB were seen that are the training's own, with what its first step imports, for any number of images.
    # A run that held all images would take 590 MB more.
    assert peaks[stage] - peaks["imports"] < 0.9 * MEGABYTES, peaks
