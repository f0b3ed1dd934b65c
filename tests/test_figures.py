"""The figures of a run whatever its classes and files are called and however many there are."""

import logging
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from s9.tracking.confusion import MOST_NAMED, confusion_matrix, most_confused
from s9.tracking.drawing import DPI, any_letters, fitted, printable, save, width_of, wrapped
from s9.tracking.figures import augmentation_grid, curves, draw_all
from s9.tracking.folder import RunFolder
from s9.tracking.mistakes import misclassified_grid

LARGEST = 2500  # pixels on a side of any picture
LONG = "golden-crowned flycatcher of the {}th northern kind"  # more than 40 letters
NAMES = ["class {}", LONG, "W" * 40 + "{}", "猫" * 30 + "{}"]  # matplotlib's font lacks the last
NAMES_AND_SIZES = list(zip(NAMES, ((8, 8), (45, 20), (20, 45), (8, 8)), strict=True))
NOT_UTF8 = "caf\udce9.png"  # as os.fsdecode gives it


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def write_predictions(
    folder: RunFolder,
    classes: int,
    *,
    wrong: int = 100,
    called: str = "class {}",
    files: tuple[str, ...] = (),
    size: tuple[int, int] = (8, 8),
) -> None:
    """Of a network that calls `wrong` of 3,000 images by the next class, and all others what they are."""
    labels = np.arange(3000) % classes
    preds = labels.copy()
    preds[:wrong] = (labels[:wrong] + 1) % classes
    probs = np.zeros((3000, classes), np.float32)
    probs[np.arange(3000), preds] = 1
    shown = np.zeros((3000, *size, 3), np.uint8)
    folder.write_predictions(probs, labels, shown, tuple(called.format(n) for n in range(classes)), names=files)


def files_called(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.format(n) for n in range(3000))


def said(figure: Figure) -> list[str]:
    """All texts of the figure, each on one line."""
    return [text.get_text().replace("\n", " ") for text in texts_of(figure)]


def texts_of(figure: Figure) -> list[Text]:
    canvas = FigureCanvasAgg(figure)
    with any_letters():
        canvas.draw()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():  # there may be ticks beyond the ends, which are not drawn
            if not low <= tick.get_loc() <= high:
                tick.label1.set_visible(False)
    found = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    return [text for text in found if text.get_text() and text.get_visible()]


def overlapping(texts: list[Text]) -> list[tuple[str, str]]:
    """Pairs of texts of which one is drawn over the other by more than a pixel."""
    boxes = np.array([text.get_window_extent().padded(-0.5).extents for text in texts])
    apart = (boxes[:, None, :2] >= boxes[None, :, 2:]).any(-1)
    pairs = np.argwhere(np.triu(~(apart | apart.T), 1))
    return [(texts[a].get_text(), texts[b].get_text()) for a, b in pairs]


def outside(figure: Figure, texts: list[Text]) -> list[str]:
    boxes = np.array([text.get_window_extent().extents for text in texts])
    out = (boxes < -1).any(1) | (boxes[:, 2:] > (figure.bbox.width + 1, figure.bbox.height + 1)).any(1)
    return [texts[number].get_text() for number in np.flatnonzero(out)]


# The confusion matrix


@pytest.mark.parametrize("classes", [2, 10, MOST_NAMED, MOST_NAMED + 1, 1000])
def test_the_confusion_matrix_is_a_picture_of_bounded_size(folder: RunFolder, classes: int) -> None:
    write_predictions(folder, classes, called=LONG)
    size = DPI * confusion_matrix(folder).get_size_inches()
    assert min(size) > 300 and max(size) <= LARGEST


@pytest.mark.parametrize("called", NAMES)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_no_text_of_the_confusion_matrix_is_over_another_or_outside(
    folder: RunFolder, classes: int, called: str
) -> None:
    write_predictions(folder, classes, called=called)
    texts = texts_of(figure := confusion_matrix(folder))
    assert (overlapping(texts), outside(figure, texts)) == ([], [])


def test_long_names_are_whole_and_have_the_numbers_of_their_columns(folder: RunFolder) -> None:
    write_predictions(folder, 10, called=LONG)
    assert {f"{LONG.format(n)} (300)  {n}" for n in range(10)} <= set(said(confusion_matrix(folder)))


def test_each_count_is_written(folder: RunFolder) -> None:
    write_predictions(folder, MOST_NAMED, wrong=0)
    assert said(confusion_matrix(folder)).count(str(3000 // MOST_NAMED)) == MOST_NAMED


@pytest.mark.parametrize("classes", [MOST_NAMED + 1, 1000])
def test_of_many_classes_the_most_confused_are_named(folder: RunFolder, classes: int) -> None:
    write_predictions(folder, classes)
    assert "0 class 0  as  1 class 1" in said(confusion_matrix(folder))


def test_a_single_confused_pair_of_a_thousand_classes_is_seen(folder: RunFolder) -> None:
    """One image of class 0 is called class 999: the upper right corner."""
    labels = np.arange(1000)
    probs = np.eye(1000, dtype=np.float32)[[999, *range(1, 1000)]]
    folder.write_predictions(probs, labels, np.zeros((1000, 8, 8, 3), np.uint8), tuple(map(str, labels)))
    shown = confusion_matrix(folder).axes[0].images[0].get_array()
    assert shown is not None and shown.shape == (250, 250) and shown[0, -1] == 1 and (shown[0, 1:-1] == 0).all()


def test_what_is_confused_most_comes_first() -> None:
    counts = np.array([[5, 1, 0], [0, 9, 4], [2, 0, 7]])
    assert most_confused(counts, 2) == [(1, 2, 4), (2, 0, 2)]


def test_what_is_right_is_no_confusion() -> None:
    assert most_confused(np.diag([3, 4]), 5) == []


def write_uneven(folder: RunFolder) -> None:
    """30 images of ants, all right, and 3 of bees, of which two are taken for ants."""
    labels = np.repeat([0, 1], [30, 3])
    preds = np.append(np.zeros(32, int), 1)
    folder.write_predictions(np.eye(2, dtype=np.float32)[preds], labels, np.zeros((33, 8, 8, 3), np.uint8), NAMED)


NAMED = ("ants", "bees")


def test_the_confusion_matrix_says_both_accuracies_where_they_differ(folder: RunFolder) -> None:
    write_uneven(folder)
    assert "test accuracy 93.94 %, balanced 66.67 %" in said(confusion_matrix(folder))


def test_the_confusion_matrix_says_one_accuracy_where_both_are_alike(folder: RunFolder) -> None:
    write_predictions(folder, 3)
    assert "test accuracy 96.67 %" in said(confusion_matrix(folder))


def test_the_rows_of_the_confusion_matrix_say_how_many_images_they_have(folder: RunFolder) -> None:
    write_uneven(folder)
    assert {"ants (30)", "bees (3)", "ants", "bees"} <= set(said(confusion_matrix(folder)))


# The curves


def curves_of(folder: RunFolder, *balanced: float | None) -> list[str]:
    """The names of the accuracy's lines, for epochs with val accuracy 0.8; None: a record of an older run."""
    records = [
        {"epoch": n, "train/loss": 1.0, "train/accuracy": 0.9, "val/loss": 1.0, "val/accuracy": 0.8}
        | ({} if value is None else {"val/balanced_accuracy": value})
        for n, value in enumerate(balanced, start=1)
    ]
    folder.write_epochs(records, [])
    return [str(line.get_label()) for line in curves(folder).axes[1].lines]


@pytest.mark.parametrize(
    ("balanced", "drawn"),
    [((0.8, 0.7), True), ((0.8, 0.804), False), ((None, None), False), ((None, 0.7), True), ((), False)],
)
def test_the_balanced_accuracy_is_drawn_where_it_differs_from_the_accuracy(
    folder: RunFolder, balanced: tuple[float | None, ...], drawn: bool
) -> None:
    assert ("val, balanced" in curves_of(folder, *balanced)) == drawn


def test_the_only_tick_of_a_single_epoch_is_1(folder: RunFolder) -> None:
    curves_of(folder, 0.8)
    figure = curves(folder)
    texts_of(figure)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_the_balanced_accuracy_of_a_single_epoch_is_seen(folder: RunFolder) -> None:
    curves_of(folder, 0.7)
    (line,) = (line for line in curves(folder).axes[1].lines if line.get_label() == "val, balanced")
    assert line.get_marker() not in (None, "None", "", " ")


# The surest mistakes


def test_each_mistake_has_the_name_of_its_file(folder: RunFolder) -> None:
    write_predictions(folder, 3, wrong=20, files=files_called("class 0/{}.png"))
    assert {f"{n}.png" for n in range(0, 20, 3)} <= set(said(misclassified_grid(folder)))


def test_a_mistake_without_a_file_has_its_number(folder: RunFolder) -> None:
    write_predictions(folder, 3, wrong=20)
    assert {f"test image {n}" for n in range(20)} <= set(said(misclassified_grid(folder)))


def test_a_long_file_name_keeps_its_beginning_and_its_end(folder: RunFolder) -> None:
    write_predictions(folder, 3, wrong=1, files=files_called("class 0/IMG_" + "x" * 60 + "_{}.png"))
    (name,) = (text for text in said(misclassified_grid(folder)) if text.endswith("_0.png"))
    assert name.startswith("IMG_") and "…" in name


@pytest.mark.parametrize(("called", "size"), NAMES_AND_SIZES)
def test_no_caption_is_over_another_or_outside(folder: RunFolder, called: str, size: tuple[int, int]) -> None:
    write_predictions(folder, 10, wrong=10, called=called, size=size, files=files_called("W" * 70 + "/{}.jpeg"))
    texts = texts_of(figure := misclassified_grid(folder))
    assert (overlapping(texts), outside(figure, texts)) == ([], [])


def test_a_run_without_a_mistake_says_so(folder: RunFolder) -> None:
    write_predictions(folder, 3, wrong=0)
    assert said(misclassified_grid(folder)) == ["0 of 3,000 test images wrong"]


def test_a_file_name_that_is_not_utf8_is_drawn_escaped(folder: RunFolder) -> None:
    write_predictions(folder, 3, wrong=1, files=(NOT_UTF8,) * 3000)
    figure = misclassified_grid(folder)
    save(figure, folder.path / "picture.png")
    assert "caf\\udce9.png" in said(figure)


# The augmentation


@pytest.mark.parametrize(("called", "size"), NAMES_AND_SIZES)
def test_no_name_above_the_augmented_images_is_over_another(
    folder: RunFolder, called: str, size: tuple[int, int]
) -> None:
    names = [called.format(n) for n in range(10)]
    folder.write_samples(np.zeros((10, *size, 3), np.uint8), np.zeros((10, 4, *size, 3), np.uint8), names)
    texts = texts_of(figure := augmentation_grid(folder))
    assert (overlapping(texts), outside(figure, texts)) == ([], [])


# All figures


def test_a_figure_that_cannot_be_drawn_costs_that_figure_alone(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of metrics.jsonl is damaged; the figures of other files are drawn."""
    write_predictions(folder, 3)
    folder.metrics.write_text("no json\n")
    with caplog.at_level(logging.WARNING):
        drawn = draw_all(folder)
    assert [path.stem for path in drawn] == ["misclassified", "confusion"]
    (line,) = caplog.messages
    assert line.startswith("curves cannot be drawn (") and "python -m s9.report run=" in line


def test_figures_that_are_drawn_again_have_the_same_bytes(folder: RunFolder) -> None:
    write_predictions(folder, 40, wrong=10)
    first, again = ([path.read_bytes() for path in draw_all(folder)] for _ in range(2))
    assert len(first) == 2 and first == again


# Names that fit


def test_a_name_that_fits_is_left_as_it_is() -> None:
    assert fitted("cat", 1, 8) == wrapped("cat", 1, 8, 3) == "cat"


def test_a_name_is_shortened_in_its_middle_to_its_width() -> None:
    short = fitted("flycatcher_" * 9 + "17.png", 1, 8)
    assert short.startswith("flyc") and short.endswith("17.png") and "…" in short and 0.8 < width_of(short, 8) <= 1


def test_a_name_is_continued_between_words_on_the_next_line() -> None:
    assert wrapped("american staffordshire terrier", 1.2, 8, 2) == "american\nstaffordshire terrier"


def test_a_name_without_words_is_continued_anywhere() -> None:
    lines = wrapped("a" * 30, 1, 8, 3).split("\n")
    assert "".join(lines) == "a" * 30 and all(width_of(line, 8) <= 1 for line in lines)


def test_no_width_at_all_leaves_the_mark_of_what_is_left_out() -> None:
    assert fitted("cat", 0, 8) == "…"


@pytest.mark.parametrize(("name", "drawn"), [("a\nb", "a\\nb"), (NOT_UTF8, "caf\\udce9.png"), ("кошка é", "кошка é")])
def test_what_cannot_be_drawn_is_escaped(name: str, drawn: str) -> None:
    assert printable(name) == drawn
