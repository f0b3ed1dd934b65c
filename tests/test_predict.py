"""python -m s9.predict: what is written where, the exit code, and that the numbers are those of scoring."""

import csv
import io
import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from s9.data.image_set import Split
from s9.data.sources.decode import decode_image
from s9.inference import predict as rooms
from s9.inference.bars import bars_figure
from s9.inference.classifier import Classifier, load
from s9.inference.inputs import Given, find_images
from s9.inference.predict import Wanted, in_batches, predict_images
from s9.inference.written import shortened, table
from s9.training.evaluation import predict
from tests.awkward_folder import make_awkward_folder, picture
from tests.doors import environment, error_line, nobody_left, run, shell, started

COLOUR = (120, 90, 60)
FEW = 5
BAD = "not an image.png"


@pytest.fixture(scope="module")
def frontier() -> Classifier:
    return load("frontier", device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FEW pictures, and a file that is none between them."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(FEW):
        picture(number, COLOUR).save(root / f"{'m' if number < 3 else 'o'}{number}.png")
    (root / BAD).write_text("not an image")
    return root


Written = tuple[int, str, str]


@pytest.fixture
def written(
    frontier: Classifier, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Written]:
    """(exit code, stdout, stderr) for all photos, or for a given one."""

    def write(form: str, *, top: int = 2, image: str = "", save: Path | None = None) -> Written:
        found = find_images([image or str(photos)], tmp_path)
        code = predict_images(frontier, found, Wanted(top, form, save=save))
        return code, *capsys.readouterr()

    return write


# The numbers


def test_the_probabilities_are_those_of_scoring(frontier: Classifier, tmp_path: Path) -> None:
    make_awkward_folder(tmp_path / "photos")
    images = find_images([str(tmp_path / "photos")], tmp_path).found
    answers = [answer for batch in in_batches(frontier, images) for answer in batch if answer.prediction]
    size, resize = frontier.facts.image_size, frontier.resize
    squares = np.stack([decode_image(Path(answer.image.path), size, resize=resize).pixels for answer in answers])
    split = Split(squares, np.zeros(len(squares), np.int64))
    wanted = predict(frontier.model, split, frontier.facts, frontier.compute).numpy()
    found = np.stack([answer.prediction.probs for answer in answers if answer.prediction])
    assert len(found) == 179
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)  # other batches may be summed in another order


def test_flip_is_the_mean_over_the_image_and_its_mirror(frontier: Classifier, photos: Path) -> None:
    image = Given("", str(photos / "m0.png"))
    ((answer,),) = in_batches(frontier, [image], flip=True)
    assert answer.prediction is not None
    assert np.array_equal(answer.prediction.probs, frontier(image.path, flip=True).probs)


def test_batches_do_not_change_the_order(
    frontier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "BATCH", 2)
    images = find_images([str(photos)], tmp_path).found
    batches = list(in_batches(frontier, images))
    assert [answer.image for batch in batches for answer in batch] == images
    assert [len(batch) for batch in batches] == [2, 2, 2, 0]


# What is written


def test_a_bad_file_is_one_line_on_stderr_and_the_others_are_classified(
    written: Callable[..., Written], photos: Path
) -> None:
    code, out, err = written("table")
    assert err == f"{photos / BAD}: cannot be read as an image (its content is not a readable image format)\n"
    assert (code, len(out.splitlines())) == (1, FEW)


def test_all_files_read_is_exit_code_0(written: Callable[..., Written], photos: Path) -> None:
    assert written("table", image=f"{photos}/m*.png")[::2] == (0, "")


def test_no_file_read_is_exit_code_2(written: Callable[..., Written], photos: Path) -> None:
    assert written("table", image=str(photos / BAD))[0] == 2


def assert_alike(some: list[tuple[str, float]], others: list[tuple[str, float]]) -> None:
    """The same classes and probabilities; an image alone may round differently from one in a batch."""
    assert [name for name, _ in some] == [name for name, _ in others]
    assert [prob for _, prob in some] == pytest.approx([prob for _, prob in others], rel=1e-5)


def test_json_is_an_object_an_image(written: Callable[..., Written], photos: Path, frontier: Classifier) -> None:
    rows = [json.loads(line) for line in written("json")[1].splitlines()]
    assert rows[0].keys() == {"image", "top"} and rows[0]["image"] == str(photos / "m0.png")
    assert all(one.keys() == {"class", "probability"} for one in rows[0]["top"])
    assert_alike([(one["class"], one["probability"]) for one in rows[0]["top"]], frontier(photos / "m0.png").top(2))
    bad = rows[3]
    assert (bad["image"], bad["top"]) == (str(photos / BAD), [])
    assert bad["error"] == "cannot be read as an image (its content is not a readable image format)"


def test_csv_has_a_row_an_image(written: Callable[..., Written], photos: Path, frontier: Classifier) -> None:
    rows = list(csv.reader(io.StringIO(written("csv")[1])))
    assert rows[0] == ["image", "class_1", "probability_1", "class_2", "probability_2", "error"]
    image, *top, error = rows[1]
    assert (image, error) == (str(photos / "m0.png"), "")
    pairs = [(name, float(prob)) for name, prob in zip(top[::2], top[1::2], strict=True)]
    assert_alike(pairs, frontier(photos / "m0.png").top(2))
    assert rows[4][1:5] == [""] * 4 and rows[4][5].startswith("cannot be read")


def test_there_are_no_more_columns_than_classes(written: Callable[..., Written]) -> None:
    assert written("csv", top=99)[1].splitlines()[0].count("probability_") == 10


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_name_that_is_not_utf_8_is_written_in_each_form(
    written: Callable[..., Written], tmp_path: Path, form: str
) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    picture(1, COLOUR).save(os.fsdecode(path))
    code, out, err = written(form, image=os.fsdecode(path))
    assert (code, err) == (0, "")
    assert r"caf\udce9.png" in out


def test_a_name_cannot_steer_the_terminal(written: Callable[..., Written], tmp_path: Path) -> None:
    path = tmp_path / "new\nline\x1b[31m.png"
    picture(1, COLOUR).save(path)
    assert r"new\nline\x1b[31m.png" in written("table", image=str(path))[1]


# The table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rows_in(columns: int, monkeypatch: pytest.MonkeyPatch, classifier: Classifier, photos: Path) -> list[str]:
    """The table of two images in a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    long = "日本語の名前" * 10
    images = [Given("a.png", str(photos / "m0.png")), Given(f"{long}/b.png", str(photos / "m1.png"))]
    terminal = Terminal()
    write = table(images, classifier.classes, 3, terminal)
    for (answer,) in (batch for image in images for batch in in_batches(classifier, [image])):
        write(answer)
    return terminal.getvalue().splitlines()


def test_a_wide_terminal_has_a_line_an_image(
    monkeypatch: pytest.MonkeyPatch, frontier: Classifier, photos: Path
) -> None:
    rows = rows_in(100, monkeypatch, frontier, photos)
    assert [cell_len(row) for row in rows] == [100, 100]
    assert "…" in rows[1]


@pytest.mark.parametrize("columns", [30, 50, 70])
def test_a_narrow_terminal_has_a_line_a_class(
    monkeypatch: pytest.MonkeyPatch, frontier: Classifier, photos: Path, columns: int
) -> None:
    rows = rows_in(columns, monkeypatch, frontier, photos)
    assert len(rows) == 6
    assert {cell_len(row) for row in rows} == {columns}


@pytest.mark.parametrize(
    ("text", "width", "wanted"),
    [("cat", 5, "cat  "), ("abcdefgh", 5, "ab…gh"), ("abcdefgh", 4, "a…gh"), ("ab", 1, "…"), ("日本語", 4, " …語")],
)
def test_a_name_loses_its_middle(text: str, width: int, wanted: str) -> None:
    assert shortened(text, width) == wanted


# The picture


def test_the_picture_has_each_image_that_could_be_read(frontier: Classifier, photos: Path) -> None:
    read = [Given(path.name, str(path)) for path in sorted(photos.glob("[mo]*.png"))]
    figure = bars_figure([(image, frontier(image.path)) for image in read], 3, title="frontier", bits=None)
    assert len(figure.axes[0].images) == FEW
    assert len(figure.axes[0].patches) == FEW * 3 * 2  # a bar on a track for each class


def test_long_names_fit_into_the_picture(frontier: Classifier, photos: Path) -> None:
    names = tuple(f"{number}{'a very long name of a class $x_1^2$ ' * 5}" for number in range(10))
    talkative = replace(frontier, facts=replace(frontier.facts, class_names=names))
    image = Given("folder/" * 30, str(photos / "m0.png"))
    figure = bars_figure([(image, talkative(image.path))], 5, title="run/" * 90, bits=None)
    figure.canvas.draw()
    width = figure.bbox.width
    texts = [*figure.axes[0].texts, *figure.texts]
    assert len(texts) == 2 + 2 * 5
    assert all(text.get_window_extent().x0 >= 0 and text.get_window_extent().x1 <= width for text in texts)


def test_the_picture_says_what_it_leaves_out(
    written: Callable[..., Written], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "MOST_DRAWN", 2)
    monkeypatch.setattr(rooms, "MOST_BARS", 3)
    picture_file = tmp_path / "bars.png"
    err = written("table", top=4, save=picture_file)[2].splitlines()
    assert err[1:] == [
        f"{picture_file}: shows the first 2 of {FEW} images",
        f"{picture_file}: shows the first 3 classes of each image",
    ]
    with Image.open(picture_file) as image:
        assert image.format == "PNG"


# The command


def test_arguments_without_a_key_are_images(photos: Path) -> None:
    odd = photos / "lr=0.1.png"
    picture(9, COLOUR).save(odd)
    try:
        done = run(photos, "predict", "run=frontier", "m0.png", odd.name, "image=o4.png", "top=1", "format=csv")
    finally:
        odd.unlink()
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["image"] for row in csv.DictReader(io.StringIO(done.stdout))] == ["m0.png", odd.name, "o4.png"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["run=frontier"], "error: image= is missing: a file, a folder, a pattern, or - for standard input"),
        (["m0.png"], "error: run= is missing; "),
        (["run=frontier", "m9.png"], "error: image=m9.png: there is no such file"),
        (["run=frontier", "m0.png", "--top", "3"], "error: --top: must be top=<value>"),
        (["run=frontier", "m0.png", "top=0"], "error: top=0: must be a whole number from 1"),
        (["run=frontier", "m0.png", "format=xml"], "error: format=xml: must be table or json or csv"),
        (["run=frontier", "m0.png", "save=a.jpg"], "error: save=a.jpg: must be the path of a .png file in a folder"),
        (["run=frontier", "imag=m0.png"], "error: imag=m0.png: there is no such key; did you mean image?"),
        (["run=frontiers", "m0.png"], "error: run=frontiers: "),
    ],
)
def test_a_mistake_is_one_line(photos: Path, arguments: list[str], error: str) -> None:
    assert error_line(run(photos, "predict", *arguments), 2).startswith(error)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many images that processes decode them."""
    root = tmp_path_factory.mktemp("many")
    picture(0, COLOUR, (32, 32)).save(root / "0000.png")
    for number in range(1, 4000):
        (root / f"{number:04}.png").hardlink_to(root / "0000.png")
    return root


@pytest.mark.slow
def test_ctrl_c_ends_it_without_a_word(many: Path, tmp_path: Path) -> None:
    with started(tmp_path, shell("predict", "run=frontier", f"image={many}")) as door:
        door.has_said("0000.png")
        os.killpg(door.pid, signal.SIGINT)
        done = door.end(30)
        assert (done.returncode, done.stderr) == (130, "")
        assert 0 < len(done.stdout.splitlines()) < 4000
        assert nobody_left(tmp_path)


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_without_a_word(many: Path, tmp_path: Path) -> None:
    command = [*shell("predict", "run=frontier", f"image={many}")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(f"{many}/0000.png")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 128 + signal.SIGPIPE
    assert nobody_left(tmp_path)
