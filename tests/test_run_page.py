"""A run's page: what it says of finished, cut, failed and old runs, from the folder alone."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s9.pages.run_config import config_lines, keys_of
from s9.pages.run_files import RunFiles
from s9.pages.run_page import sentences, write_run_page
from s9.pages.run_scores import LARGEST, MOST_MISTAKES, OnTest
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from tests.made_up_run import (
    COMMAND,
    MadeUp,
    finished,
    write_asked,
    write_epochs,
    write_log,
    write_outcome,
    write_status,
)

MARKUP = "<img src=x onerror=alert(1)>"


def before_scripts(folder: RunFolder) -> str:
    """What the page shows without JavaScript, as HTML."""
    return write_run_page(folder).read_text().partition('<script type="application/json"')[0].partition("<body>")[2]


def shown(folder: RunFolder) -> str:
    """The words of the page, without JavaScript."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", before_scripts(folder))).split())


def data(folder: RunFolder) -> dict[str, Any]:
    """What the page's script reads."""
    (found,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', write_run_page(folder).read_text()
    )
    content: dict[str, Any] = json.loads(found)
    return content


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return finished(tmp_path / "a")


@pytest.fixture
def unfinished(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "b")
    write_asked(folder)
    write_status(folder, "interrupted", reason="interrupted by SIGTERM")
    write_epochs(folder, 2)
    write_log(folder)
    return folder


def test_the_page_is_named_and_lies_in_the_folder(folder: RunFolder) -> None:
    assert write_run_page(folder) == folder.path / "report.html"


def test_the_scores_are_said_first(folder: RunFolder) -> None:
    said = shown(folder)
    assert "Val accuracy 75.00 % (75 of 100 images), test accuracy 80.00 % (24 of 30 images) after 3 epochs" in said


def test_the_command_is_shown(folder: RunFolder) -> None:
    assert COMMAND in shown(folder)


def test_what_the_command_sets_is_marked_in_the_configuration(folder: RunFolder) -> None:
    marked = re.findall("<mark>(.*?)</mark>", before_scripts(folder))
    assert marked == ["data:", "model:", "  epochs: 3", "wandb:"]


def test_the_configuration_is_shown_whole(folder: RunFolder) -> None:
    (text,) = re.findall(r"<summary>All \d+ lines</summary>\s*<pre>(.*?)</pre>", before_scripts(folder), re.DOTALL)
    assert html.unescape(re.sub("</?mark>", "", text)) == folder.config.read_text()


def test_a_key_inside_another_group_is_not_marked() -> None:
    assert config_lines("a:\n  lr: 1\nb:\n  lr: 2\n", "python -m s9.train b.lr=2")[1:] == [
        ("  lr: 1", False),
        ("b:", False),
        ("  lr: 2", True),
    ]


def test_a_command_whose_quotes_were_lost_still_has_keys() -> None:
    assert keys_of("python -m s9.train name=it's seed=1") == {"name", "seed"}


def test_a_configuration_that_is_no_yaml_is_shown_all_the_same() -> None:
    assert config_lines("a: [", "a=1") == [("a: [", False)]


def test_every_epoch_is_in_a_table(folder: RunFolder) -> None:
    assert "3 0.03333 0.6667 83.33 0.8333 80.00 5.5" in shown(folder)


def test_all_mistakes_are_listed_the_surest_first(folder: RunFolder) -> None:
    rows = data(folder)["onTest"]["mistakes"]
    assert [row[0] for row in rows] == [f"{name}.png" for name in ("ant/0000", "ant/0001", "bee/0010", "bee/0011")] + [
        "cat/0020.png",
        "cat/0021.png",
    ]
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)


def test_a_mistake_of_the_gallery_has_its_file_its_classes_and_its_probabilities(folder: RunFolder) -> None:
    figure = before_scripts(folder).partition("<figure>")[2].partition("</figure>")[0]
    words = " ".join(re.sub("<[^>]*>", " ", figure).split())
    assert words == "is ant , predicted bee 0000.png bee 90.0 % ant 5.0 % cat 5.0 %"


def test_the_gallery_shows_the_true_class_even_if_it_is_not_among_the_surest(tmp_path: Path) -> None:
    said = MadeUp(classes=tuple("abcdef"), wrong=1)
    write_outcome(folder := RunFolder(tmp_path), said)
    last = OnTest(folder.read_predictions()).gallery()[-1]  # f is called a; b and c are as likely as f
    assert [bar["name"] for bar in last["bars"]] == ["a", "b", "c", "f"]
    assert [bar["is_true"] for bar in last["bars"]] == [False, False, False, True]


def test_a_large_image_is_made_smaller(tmp_path: Path) -> None:
    addresses = re.findall(
        '<img src="data:image/png;base64,([^"]*)"', before_scripts(finished(tmp_path, MadeUp(side=224)))
    )
    sizes = [Image.open(io.BytesIO(base64.b64decode(address))).size for address in addresses]
    assert sizes == [(LARGEST, LARGEST)] * 6


def test_the_classes_have_recall_precision_and_what_they_are_confused_with(folder: RunFolder) -> None:
    assert data(folder)["onTest"]["perClass"][0] == ["ant", None, 10, 8, 80.0, 80.0, "bee", 2]


def test_the_classes_have_their_train_images_where_the_summary_has_them(folder: RunFolder) -> None:
    summary = {"classes": {"ant": {"train": 70}, "bee": {"train": 7}}}
    rows = OnTest(folder.read_predictions(), summary).class_rows()
    assert [row[:2] for row in rows] == [["ant", 70], ["bee", 7], ["cat", None]]


def test_the_balanced_accuracy_is_told_where_it_differs_from_the_accuracy(folder: RunFolder) -> None:
    summary = folder.read_summary()
    summary["test"]["balanced_accuracy"] = summary["test"]["accuracy"] - 0.1
    folder.write_summary(summary)
    assert "test accuracy 80.00 % (24 of 30 images), balanced 70.00 %" in sentences(RunFiles(folder))[0]


def test_a_class_without_images_or_predictions_has_no_recall_and_no_precision(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    folder.write_predictions(np.array([[1.0, 0.0]], np.float32), np.array([0]), images, ("some", "none"))
    assert OnTest(folder.read_predictions()).class_rows()[1] == ["none", None, 0, 0, None, None, "", None]


def test_the_confusion_matrix_has_every_image(folder: RunFolder) -> None:
    cells = {(true, pred): images for true, pred, images in data(folder)["onTest"]["cells"]}
    assert cells == {(0, 0): 8, (0, 1): 2, (1, 1): 8, (1, 2): 2, (2, 2): 8, (2, 0): 2}


@pytest.mark.parametrize(("classes", "drawn"), [(2, True), (100, True), (200, True), (201, False), (1000, False)])
def test_the_matrix_is_drawn_up_to_200_classes(tmp_path: Path, classes: int, drawn: bool) -> None:
    said = MadeUp(tuple(f"class {n}" for n in range(classes)), images=3, wrong=1)
    folder = finished(tmp_path, said)
    assert (data(folder)["onTest"]["cells"] is not None) == ('id="chart-confusion"' in before_scripts(folder)) == drawn


def test_with_more_classes_the_most_confused_pairs_are_open_to_read(tmp_path: Path) -> None:
    folder = finished(tmp_path, MadeUp(tuple(f"class {n}" for n in range(201)), images=3, wrong=1))
    assert "<details open><summary>The most confused pairs: 50 of 201</summary>" in before_scripts(folder)
    assert "class 7 class 8 1 33.33" in shown(folder)


def test_the_calibration_error_is_said_with_its_bins(folder: RunFolder) -> None:
    assert "Expected calibration error: " in shown(folder)
    assert "15 bins of equal width by the probability of the predicted class" in shown(folder)


def test_the_layer_table_has_the_networks_numbers(folder: RunFolder) -> None:
    assert "186,947 parameters" in shown(folder)  # for three classes
    assert "C1.conv1 3x3 32 x 32 x 32 928 884,736 3 1" in shown(folder)


def test_the_machine_is_named(folder: RunFolder) -> None:
    said = shown(folder)
    assert "processor a processor" in said and "threads 2" in said and "torch 2.99" in said and "commit abc123" in said


def test_markup_in_names_of_classes_and_files_is_text(tmp_path: Path) -> None:
    page = write_run_page(finished(tmp_path, MadeUp((MARKUP, "</script><b>", "cat")))).read_text()
    assert MARKUP not in page and "</script><b>" not in page
    assert html.escape(MARKUP) in page


def test_markup_in_the_log_and_in_a_reason_is_text(unfinished: RunFolder) -> None:
    unfinished.log.write_text(f"2026-11-26 01:00:00,123 WARNING {MARKUP}\n")
    write_status(unfinished, "failed", reason=MARKUP)
    assert MARKUP not in write_run_page(unfinished).read_text()


def test_a_file_name_that_is_no_utf_8_is_shown(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    said = MadeUp()
    names = tuple(name.replace("0000", "\udcff") for name in said.names)
    images = np.zeros((30, 8, 8, 3), np.uint8)
    folder.write_predictions(said.probs, said.labels, images, said.classes, names=names)
    assert "\\udcff.png" in shown(folder)


def test_where_a_run_was_cut_and_resumed_is_said_in_words(folder: RunFolder) -> None:
    write_log(folder, 15)
    write_status(folder, "done", starts=2)
    wanted = "Stopped after 2026-11-26 01:00:07, resumed at 2026-11-26 02:00:01 from step 15 (epoch 1.50)."
    assert f"The run was started 2 times. {wanted}" in shown(folder)


def test_where_a_run_was_resumed_is_marked_in_the_curves(folder: RunFolder) -> None:
    write_log(folder, 15, 25)
    assert data(folder)["curves"]["resumed"] == [1.5, 2.5]


def test_a_start_from_the_beginning_is_no_mark(folder: RunFolder) -> None:
    write_log(folder, 0)
    assert data(folder)["curves"]["resumed"] == []
    assert "resumed at 2026-11-26 02:00:01 from the start." in shown(folder)


def test_a_line_that_a_crash_has_cut_hides_no_resume(folder: RunFolder) -> None:
    write_log(folder, 15)
    text = folder.log.read_text()
    folder.log.write_text(text.replace("train loss 2.0\n", "train lo", 1))
    assert data(folder)["curves"]["resumed"] == [1.5]


def test_starts_that_the_log_does_not_tell_of_are_counted(folder: RunFolder) -> None:
    write_log(folder, 15)
    write_status(folder, "done", starts=4)
    assert "Where 2 of the starts began is not in train.log." in shown(folder)


def test_warnings_of_the_log_are_shown(folder: RunFolder) -> None:
    write_log(folder, 15)
    assert "2026-11-26 02:00:09,000 WARNING Bypassing signal SIGCONT" in shown(folder)


def test_an_interrupted_run_says_so_and_how_to_resume(unfinished: RunFolder) -> None:
    wanted = "The run was interrupted after 2 of 3 epochs: interrupted by SIGTERM; resume with: python -m s9.train"
    assert f"{wanted} resume={unfinished}" in shown(unfinished)


def test_a_killed_run_is_cut(unfinished: RunFolder) -> None:
    write_status(unfinished, "running")
    assert "The run was cut after 2 of 3 epochs" in shown(unfinished)


def test_an_unfinished_run_says_what_its_page_lacks(unfinished: RunFolder) -> None:
    assert "There is no predictions.npz yet; the page lacks all that is known of single test images" in shown(
        unfinished
    )


def test_a_failed_run_says_why_and_shows_its_traceback(unfinished: RunFolder) -> None:
    write_status(unfinished, "failed", reason="the loss is nan")
    unfinished.traceback.write_text("Traceback: a line")
    said = shown(unfinished)
    assert "The run failed after 2 of 3 epochs: the loss is nan." in said and "Traceback: a line" in said


def test_a_damaged_file_costs_its_part_alone(folder: RunFolder) -> None:
    folder.predictions.write_bytes(b"no zip")
    said = shown(folder)
    assert "predictions.npz cannot be used" in said and "186,947 parameters" in said


def test_a_damaged_line_of_metrics_costs_the_curves_alone(folder: RunFolder) -> None:
    folder.metrics.write_text("no json\n")
    said = shown(folder)
    assert "metrics.jsonl cannot be used" in said and "Expected calibration error" in said


def test_shipped_weights_have_a_page_of_the_files_they_have(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    for path in (folder.status, folder.metrics, folder.times, folder.predictions, folder.log, folder.identity):
        path.unlink()
    said = shown(folder)
    assert "Val accuracy 75.00 %" in said and "There is no metrics.jsonl; the page lacks the curves." in said


def test_predictions_alone_have_a_page(tmp_path: Path) -> None:
    write_outcome(folder := RunFolder(tmp_path), MadeUp())
    folder.summary.unlink()
    assert "No file tells how the run stands" in shown(folder)


def test_a_run_from_before_file_names_numbers_its_images(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    write_outcome(folder, MadeUp(), named=False)
    assert data(folder)["onTest"]["mistakes"][0][0] == "test image 0"


def test_a_run_without_images_json_has_its_layer_table(tmp_path: Path) -> None:
    folder = finished(tmp_path, MadeUp(side=32))
    folder.images.unlink()
    assert "186,947 parameters" in shown(folder)


def test_without_any_file_that_knows_the_classes_there_is_no_layer_table(unfinished: RunFolder) -> None:
    unfinished.images.unlink()
    assert "The layer table cannot be made: no file tells the number of classes" in shown(unfinished)


def test_a_folder_without_files_of_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no files of a run"):
        write_run_page(RunFolder(tmp_path))


def test_donors_are_named(folder: RunFolder) -> None:
    write_asked(folder, "init_from=outputs/first", "teacher=outputs/second", "distillation.share=0.6")
    said = shown(folder)
    assert "The run started from the weights of outputs/first." in said
    assert "learned from the teacher outputs/second; 60 % of the loss is the teacher's, at temperature 2." in said


def in_sweep(tmp_path: Path) -> RunFolder:
    folder = finished(tmp_path / "which" / "0123456789")
    jobs = {"0123456789": {"model.dropout": "0.1", "seed": "2"}}
    (tmp_path / "which" / "sweep.json").write_text(json.dumps({"arguments": [], "keys": [], "jobs": jobs}))
    write_status(folder, "done", group="which")
    return folder


def test_a_job_links_to_its_sweep_and_names_its_values(tmp_path: Path) -> None:
    folder = in_sweep(tmp_path)
    assert '<a href="../report.html">sweep which</a>' in before_scripts(folder)
    assert "model.dropout=0.1 · seed=2" in shown(folder)


def test_a_job_of_a_sweep_is_summed_up_by_val_alone(tmp_path: Path) -> None:
    folder = in_sweep(tmp_path)
    first = shown(folder).partition("Curves")[0]
    assert "Val accuracy 75.00 %" in first and "test accuracy" not in first
    assert data(folder)["curves"]["test"] is None


def test_a_run_alone_links_to_no_sweep(folder: RunFolder) -> None:
    assert "../report.html" not in before_scripts(folder)


def test_every_link_to_a_file_leads_to_it(folder: RunFolder) -> None:
    folder.figures.mkdir()
    (folder.figures / "a b#.png").write_bytes(b"")
    addresses = re.findall('<li><a href="([^"]*)"', before_scripts(folder))
    assert addresses == ["figures/a%20b%23.png", "train.log", "config.yaml", "summary.json"]


def test_a_page_of_10_000_images_and_40_percent_mistakes_is_below_3_megabytes(tmp_path: Path) -> None:
    said = MadeUp(tuple(f"class {n}" for n in range(10)), images=1000, wrong=400, side=32)
    assert write_run_page(finished(tmp_path, said)).stat().st_size < 3_000_000


def test_no_more_mistakes_than_a_page_can_hold_are_listed(tmp_path: Path) -> None:
    folder = finished(tmp_path, MadeUp(images=4000, wrong=2000))
    assert len(data(folder)["onTest"]["mistakes"]) == MOST_MISTAKES
    assert "All mistakes: the surest 5,000" in shown(folder)
