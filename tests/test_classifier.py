"""s9.load and s9.models: a trained network by name, folder or file, and what it says of images of every kind."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import s9
from s9.config.data import FolderConfig
from s9.data.image_set import Split
from s9.data.sources.decode import decode_image
from s9.inference.classifier import Classifier, load
from s9.inference.inputs import Given
from s9.inference.predict import in_batches
from s9.inference.scored_images import Chosen, images_to_score
from s9.models.shipped import shipped
from s9.runs.about import about_weights
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.training.evaluation import predict
from s9.training.weights import digest_of, read_about
from tests.awkward_folder import picture
from tests.conftest import ROOT
from tests.doors import run

COLOUR = (120, 90, 60)


@pytest.fixture(scope="module")
def frontier() -> Classifier:
    return load("frontier")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on the digits, as a user's command leaves it."""
    place = tmp_path_factory.mktemp("trained")
    quick = ("data=digits", "aug=none", "trainer.epochs=1", "trainer.batch_size=64", "trainer.steps_per_epoch=3")
    assert run(place, "train", *quick, "wandb=disabled", "hydra.run.dir=run").returncode == 0
    return RunFolder(place / "run")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    picture(3, COLOUR, (60, 40)).save(path)
    return path


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.array_equal(found, wanted))


def test_every_shipped_network_is_listed_with_its_accuracy() -> None:
    listed = s9.models()
    assert list(listed) == shipped()
    assert listed["frontier"].endswith("CIFAR-10 (JPEG): val 91.30 %, test 91.15 %")
    assert listed["frontier"].startswith("194,778 parameters, 32 x 32 pixels, 10 classes")


@pytest.mark.parametrize("name", shipped())
def test_shipped_weights_know_all_that_their_folder_knows(name: str) -> None:
    about, file = about_weights(name)
    folder = RunFolder(file.parent.parent)
    images, summary = folder.read_images(), folder.read_summary()
    assert images is not None
    assert (about.model.blocks, about.images.class_names) == (folder.read_config().model.blocks, images.class_names)
    assert (about.images.mean, about.images.std) == (images.mean, images.std)
    assert about.metrics == {split: summary[split] for split in ("val", "test") if split in summary}


def test_a_file_of_weights_alone_is_enough(tmp_path: Path, photo: Path, frontier: Classifier) -> None:
    file = shutil.copy(about_weights("frontier")[1], tmp_path / "mine.safetensors")
    assert same(load(file)(photo).probs, frontier(photo).probs)


def test_a_run_can_be_loaded_from_its_folder(trained: RunFolder) -> None:
    net, summary = s9.load(trained.path), trained.read_summary()
    assert net.classes == tuple("0123456789")
    assert net.metrics == {split: summary[split] for split in ("val", "test")}


def test_a_deep_image_is_read_with_the_bits_that_training_used(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(24):
        file = tmp_path / "deep" / f"{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 4096, (16, 16), np.uint16)).save(file)
    quick = ("aug=none", "trainer.epochs=1", "trainer.batch_size=4", "trainer.steps_per_epoch=2", "wandb=disabled")
    folder = ("data=folder", "data.root=deep", "data.image_size=16", "hydra.run.dir=run")
    assert run(tmp_path, "train", *quick, *folder).returncode == 0
    net, stored = load(tmp_path / "run"), RunFolder(tmp_path / "run")
    assert same(net.squares(file)[0], decode_image(file, 16, bits=12).pixels)
    ((answer,),) = in_batches(net, [Given("", str(file))])
    assert answer.prediction is not None and same(answer.prediction.probs, net(file).probs)
    originals = stored.read_arrays(stored.samples)["original"]  # 16 pixels in the middle of 128
    assert originals[:, 56:72, 56:72].mean() == pytest.approx(127.5, abs=10)
    known = stored.read_images()
    assert known is not None and known.bits == net.facts.bits == 12
    dark = tmp_path / "dark" / "0" / "dark.png"
    dark.parent.mkdir(parents=True)
    Image.fromarray(random.integers(0, 900, (16, 16), np.uint16)).save(dark)
    data = stored.read_config().data
    assert isinstance(data, FolderConfig)
    data = replace(data, root=str(tmp_path / "dark"))
    scored = images_to_score(Chosen(data, data), 0, "all", known=known)
    assert same(scored.parts[0].images[0], decode_image(dark, 16, bits=12).pixels)


def test_images_of_before_december_2026_say_nothing_of_bits(trained: RunFolder, tmp_path: Path) -> None:
    """And weights of such images stay as they were, so that earlier versions read them."""
    assert "bits" not in read_about(trained.final)["images"]
    older, content = RunFolder(tmp_path), json.loads(trained.images.read_bytes())
    assert content.pop("bits") is None
    older.images.write_text(json.dumps(content))
    assert older.read_images() == trained.read_images()


def test_the_best_weights_of_a_run_carry_their_scores_too(trained: RunFolder) -> None:
    record = trained.read_metrics()[0]
    assert load(trained.path, weights="best").metrics["val"]["accuracy"] == record["val/accuracy"]


def test_the_weights_of_a_run_name_its_identity(trained: RunFolder) -> None:
    assert len(read_about(trained.final)["identity"]) == 64


def test_a_run_whose_weights_say_nothing_is_read_from_its_folder(trained: RunFolder, tmp_path: Path) -> None:
    older = RunFolder(shutil.copytree(trained.path, tmp_path / "older"))
    save_file(load_file(older.final), older.final)
    assert read_about(older.final) == {}
    assert load(older.path).classes == tuple("0123456789")


def test_what_a_file_says_does_not_change_which_weights_they_are(trained: RunFolder, tmp_path: Path) -> None:
    save_file(load_file(trained.final), tmp_path / "plain.safetensors")
    assert trained.final.read_bytes() != (tmp_path / "plain.safetensors").read_bytes()
    assert digest_of(trained.final) == digest_of(tmp_path / "plain.safetensors")


def test_all_kinds_of_images_give_the_same_answer(frontier: Classifier, photo: Path) -> None:
    image = Image.open(photo)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds: list[Any] = [photo, str(photo), image, array, array / 255, tensor, tensor / 255]
    found = [frontier(kind).probs for kind in kinds]
    assert all(same(probs, found[0]) for probs in found)


def test_a_batch_gives_a_list(frontier: Classifier, photo: Path) -> None:
    squares = frontier.squares([photo, photo, photo])
    for batch in (squares, torch.from_numpy(squares).permute(0, 3, 1, 2), [photo] * 3):
        assert [found.label for found in frontier(batch)] == [frontier(photo).label] * 3


def test_no_images_give_an_empty_list(frontier: Classifier) -> None:
    assert frontier([]) == []


def test_the_answer_is_that_of_scoring(frontier: Classifier) -> None:
    squares = np.stack([np.asarray(picture(index, COLOUR, (32, 32))) for index in range(20)])
    split = Split(squares, np.zeros(20, np.int64))
    wanted = predict(frontier.model, split, frontier.facts, frontier.compute).numpy()
    assert same(np.stack([found.probs for found in frontier(squares)]), wanted)


def test_the_top_classes_come_with_the_most_probable_first(frontier: Classifier, photo: Path) -> None:
    found = frontier(photo)
    top = found.top(3)
    assert top[0] == (found.label, found.probability)
    assert [p for _, p in top] == sorted(found.probs.tolist(), reverse=True)[:3]


def test_flip_averages_an_image_and_its_mirror(frontier: Classifier, photo: Path) -> None:
    square = frontier.squares(photo)[0]
    both = [frontier.probs(np.stack([s]))[0] for s in (square, square[:, ::-1])]
    assert frontier(photo, flip=True).probs == pytest.approx(np.mean(both, 0), abs=1e-6)


def test_a_photo_that_lies_on_its_side_is_turned(frontier: Classifier, tmp_path: Path) -> None:
    upright = picture(5, COLOUR, (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png", exif=exif)
    wanted = frontier(upright).probs
    assert same(frontier(tmp_path / "side.png").probs, wanted)
    assert same(frontier(Image.open(tmp_path / "side.png")).probs, wanted)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((8, 8, 3), np.int32), "an image of int32 from 0 to 0: must be uint8, or floats in"),
        (np.full((8, 8, 3), 2.0), "an image of float64 from 2.0 to 2.0: must be uint8"),
        ([np.zeros((8, 8, 5), np.uint8)], r"an image of shape \(8, 8, 5\): must be"),
        (Image.new("F", (8, 8)), "a PIL image of mode F: must have 8 bits"),
        (np.zeros((3, 8, 8), np.uint8), r"an image of shape \(3, 8, 8\): must be \(H, W\)"),
        (np.zeros((0, 8, 3), np.uint8), r"an image of shape \(0, 8, 3\)"),
        ("no/such.png", "no/such.png: there is no such file"),
        ("https://example.org/a.png", "https://example.org/a.png: is an address; download the image"),
        (None, "NoneType is no image: must be a path"),
        (b"abc", "bytes is no image"),
        ([b"abc"], "bytes is no image"),
    ],
)
def test_what_is_no_image_is_one_line(frontier: Classifier, image: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        frontier(image)


@pytest.mark.parametrize(
    ("run", "how", "said"),
    [
        ("frontierr", {}, r"run=frontierr: there is no such run; did you mean frontier\?"),
        ("nowhere", {}, "run=nowhere: there is no such run; give the folder of a run, a file of weights"),
        (str(ROOT / "tests"), {}, "tests: is no run; give the folder of a run"),
        (str(ROOT / "README.md"), {}, "README.md: is no .safetensors file; give"),
        ("frontier", {"weights": "last"}, "weights=last: must be final or best"),
        (
            "frontier",
            {"weights": "best"},
            "run=frontier: weights that come with s9 are final; there are none of weights=best",
        ),
        ("frontier", {"device": "cuda:77"}, "^device=cuda:77: not on this machine"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(run: str, how: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(run, **how)


def test_a_file_of_somebody_elses_weights_is_one_line(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other.safetensors: its weights do not say their classes, mean and std"):
        load(tmp_path / "other.safetensors")


def test_a_run_without_weights_names_the_command_that_goes_on(trained: RunFolder, tmp_path: Path) -> None:
    begun = RunFolder(tmp_path / "begun")
    begun.path.mkdir()
    shutil.copy(trained.config, begun.config)
    with pytest.raises(UserError, match=r"has no final weights yet; to go on: python -m s9.train resume=.*begun$"):
        load(begun.path)


def test_a_folder_of_a_shipped_name_does_not_hide_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frontier").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("frontier").classes[0] == "airplane"


def test_a_user_can_catch_what_is_raised() -> None:
    with pytest.raises(s9.UserError):
        s9.load("nowhere")


@pytest.mark.parametrize("count", [0, -1, "3"])
def test_a_count_of_classes_is_1_or_more(frontier: Classifier, photo: Path, count: Any) -> None:
    with pytest.raises(UserError, match=f"count={count}: must be 1 or more"):
        frontier(photo).top(count)


def test_damaged_metadata_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "damaged.safetensors"
    about, of = about_weights("frontier")
    save_file(load_file(of), file, {"s9": json.dumps(about.as_dict() | {"images": {}})})
    with pytest.raises(
        UserError, match=r"damaged.safetensors: its metadata cannot be read \(KeyError: 'class_names'\)"
    ):
        load(file)


def test_importing_s9_imports_no_torch() -> None:
    code = "import sys, s9; s9.models(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
