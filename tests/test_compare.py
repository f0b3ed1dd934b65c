"""s9.compare: what differs, what is unfair, what the answer covers, and that any folder is answered in plain words."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from s9.compare import main
from s9.pages.compare_facts import Comparison, compare, default_page
from s9.pages.compare_screen import show
from s9.pages.compare_words import of_two
from s9.system.errors import UserError
from s9.tracking.compared_run import read_runs
from s9.tracking.differences import differing_keys, unfair
from s9.tracking.folder import RunFolder
from s9.tracking.paired import Pair
from s9.tracking.same_images import order_as
from tests.compared_runs import CLASSES, SMALL, facts, make_run, rewritten
from tests.conftest import composed
from tests.doors import error_line, run

HARD = "<img src=x onerror=alert(1)>"


def two(tmp_path: Path, **second: Any) -> list[Path]:
    """Two equal runs, but for what is given of the second."""
    return [make_run(tmp_path / "a", [1, 1, 0, 1]), make_run(tmp_path / "b", [1, 0, 0, 1], **second)]


def keys(*paths: Path, free: bool = False) -> dict[str, tuple[str, ...]]:
    return {one.key: one.values for one in differing_keys(read_runs(paths)) if one.free == free}


def unfairness(*paths: Path) -> list[str]:
    return unfair(read_runs(paths))


def screen(found: Comparison, width: int = 80) -> list[str]:
    file = io.StringIO()
    show(found, Console(file=file, width=width, highlight=False))
    return file.getvalue().splitlines()


def words(found: Comparison, width: int = 80) -> str:
    return " ".join(" ".join(screen(found, width)).split())


# Keys


def test_equal_runs_differ_in_no_key(tmp_path: Path) -> None:
    assert differing_keys(read_runs(two(tmp_path))) == []


def test_a_key_that_differs_is_named_with_each_runs_value(tmp_path: Path) -> None:
    paths = two(tmp_path, config=composed(*SMALL, "optimizer.lr=0.5"))
    assert keys(*paths) == {"optimizer.lr": ("0.05", "0.5")}


def test_names_come_first(tmp_path: Path) -> None:
    paths = two(tmp_path, config=composed("data=digits", "model=dilated", "aug=none", "wandb=disabled", *SMALL[3:4]))
    assert next(iter(keys(*paths))) == "model.name"


def test_a_key_that_changes_no_result_is_kept_apart(tmp_path: Path) -> None:
    paths = two(tmp_path, config=composed(*SMALL, "trainer.save_every=7"))
    assert (keys(*paths), list(keys(*paths, free=True))) == ({}, ["trainer.save_every"])


def test_the_order_of_layers_is_a_difference(tmp_path: Path) -> None:
    paths = two(tmp_path)
    stored = json.loads((paths[1] / "identity.json").read_text())
    stored["order of"]["layers"].reverse()
    (paths[1] / "identity.json").write_text(json.dumps(stored))
    assert list(keys(*paths)) == ["order of.layers"]


def test_other_weights_to_start_from_are_a_difference(tmp_path: Path) -> None:
    paths = two(tmp_path)
    stored = json.loads((paths[1] / "identity.json").read_text())
    stored["weights of"]["init_from"] = ["f" * 64]
    (paths[1] / "identity.json").write_text(json.dumps(stored))
    assert keys(*paths) == {"weights of.init_from": ("[]", f"[{'f' * 12}]")}


def test_without_an_identity_the_donor_of_the_weights_may_change_a_result(tmp_path: Path) -> None:
    paths = two(tmp_path, config=composed(*SMALL, "init_from=s9/models/weights/frontier"))
    (paths[1] / "identity.json").unlink()
    assert "init_from" in keys(*paths)


def test_a_key_that_one_run_does_not_have_is_not_set(tmp_path: Path) -> None:
    paths = two(tmp_path, config=composed("data=digits", "model=strided", "aug=basic", *SMALL[3:]))
    assert keys(*paths)["aug.transforms.flip.p"] == ("not set", "0.5")


def test_a_configuration_that_is_refused_is_compared_as_it_is_stored(tmp_path: Path) -> None:
    paths = two(tmp_path)
    stored = (paths[1] / "config.yaml").read_text()
    (paths[1] / "config.yaml").write_text(stored.replace("s9.training.", "somebody.elses."))
    found = compare(paths)
    assert any(key.endswith("_target_") for key in keys(*paths))
    assert "compared as they are stored" in found.warnings[-1]


# Unfair


def test_equal_runs_are_fair(tmp_path: Path) -> None:
    assert unfairness(*two(tmp_path)) == []


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"machine": {"precision": "bfloat16"}}, "other precision: A float32; B bfloat16"),
        ({"machine": {"commit": "f" * 40}}, "other commits: A 0123456789ab; B ffffffffffff"),
        ({"machine": {"processor": "Xeon, 8 cores"}}, "other processor: A AMD EPYC, 2 cores; B Xeon, 8 cores"),
        ({"machine": {"threads": 1}}, "other threads: A 2; B 1"),
        ({"machine": {"versions": {"torch": "2.14.1"}}}, "other torch: A 2.15.0; B 2.14.1"),
        ({"machine": {"dirty": True}}, "B ran a source with uncommitted changes"),
        ({"images": facts(train="more")}, "other train images in B than in A"),
        ({"images": facts(test="more")}, "other test images in B than in A"),
        ({"images": facts(val="given")}, "other val images: A 150 of train, chosen by seed 0; B a folder of 12"),
        ({"status": {"state": "interrupted", "reason": "SIGTERM"}}, "B is interrupted (SIGTERM), after 2 of 2 epochs"),
    ],
)
def test_what_is_unfair_is_named(second: dict[str, Any], said: str, tmp_path: Path) -> None:
    (line,) = unfairness(*two(tmp_path, **second))
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.epochs=9", "other numbers of epochs: A 2; B 9"),
        ("data.val_size=0", "other val images: A 150 of train, chosen by seed 0; B none"),
        ("data.val_seed=3", "other val images: A 150 of train, chosen by seed 0; B 150 of train, chosen by seed 3"),
        ("teacher=s9/models/weights/frontier", "B learned from a teacher (teacher), the others did not"),
    ],
)
def test_a_setting_that_is_unfair_is_named(override: str, said: str, tmp_path: Path) -> None:
    (line,) = unfairness(*two(tmp_path, config=composed(*SMALL, override)))
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "data.val_seed=1",
            ["val images: A 4 of train less 6 of test, chosen by seed 0; B 4 of train less 6 of test, c"],
        ),
        (
            "data.val_size=0.5",
            ["val images: A 4 of train less 6 of test, chosen by seed 0; B 12 of train less 6 of test"],
        ),
        (
            "data.test_size=0.5",
            [
                "val images: A 4 of train less 6 of test, chosen by seed 0; B 3 of train less 15 of test",
                "test images: A 6 o",
            ],
        ),
        ("data.test_size=0.2", []),  # what null stands for
        ("data.val_size=4", []),
    ],
)
def test_another_part_of_a_folder_that_was_held_out_is_named(override: str, said: list[str], tmp_path: Path) -> None:
    of_folder = ("data=folder", "data.root=photos", *SMALL[1:])
    flat = replace(facts(), contents={"train": {name: (10, name) for name in CLASSES}})
    first = make_run(tmp_path / "a", config=composed(*of_folder), images=flat)
    second = make_run(tmp_path / "b", config=composed(*of_folder, override), images=flat)
    lines = unfairness(first, second)
    assert [line.startswith(f"other {start}") for line, start in zip(lines, said, strict=True)] == [True] * len(said)


def test_other_images_of_one_folder_are_not_taken_for_the_same_in_another_order(tmp_path: Path) -> None:
    flat = replace(facts(), contents={"train": facts().contents["train"]})
    runs = [
        make_run(tmp_path / names, [1, 0, 1], images=flat, names=[f"ant/{name}" for name in names])
        for names in ("abc", "abd")
    ]
    assert order_as(*read_runs(runs)) == "was tested on other images than A"


def test_runs_without_any_result_are_compared(tmp_path: Path) -> None:
    runs = two(tmp_path)
    for folder in map(RunFolder, runs):
        for file in (folder.metrics, folder.summary, folder.predictions):
            file.unlink()
        folder.status.write_text('{"state": "failed"}')
    assert "Results (of the final weights, unless it says best) none yet" in words(compare(runs))


def test_another_seed_alone_is_not_unfair(tmp_path: Path) -> None:
    assert unfairness(*two(tmp_path, config=composed(*SMALL, "seed=1"))) == []


def test_images_that_are_not_recorded_are_said(tmp_path: Path) -> None:
    paths = two(tmp_path)
    (paths[0] / "images.json").unlink()
    assert unfairness(*paths)[0] == "which images A had is not recorded"


# The answer


def pair(only_first: int, only_second: int, p: float, low: float, high: float) -> Pair:
    return Pair("A", "B", 50, only_first, only_second=only_second, neither=9, p=p, adjusted=p, low=low, high=high)


def test_more_than_chance_names_the_better_run_and_its_lead() -> None:
    lead, test, interval = of_two(pair(3, 20, 0.0005, -0.3, -0.1))
    assert lead == "B is right on 17 more of 82 test images than A: this is more than chance."
    assert test == "Only A is right on 3 images, only B on 20: McNemar's exact test, p = 0.0005."
    assert interval.startswith("Accuracy of B minus that of A: 20.73 points") and interval.endswith("10.00 to 30.00.")


def test_what_may_be_chance_cannot_be_told() -> None:
    assert "cannot be told from chance" in of_two(pair(10, 12, 0.83, -0.1, 0.05))[0]


def test_equally_many_is_no_lead() -> None:
    assert of_two(pair(5, 5, 1.0, -0.1, 0.1))[0] == "A and B are right on equally many of 69 test images."


def test_where_interval_and_test_disagree_the_test_decides() -> None:
    assert "the test decides" in of_two(pair(7, 1, 0.07, 0.01, 0.2))[-1]


def test_the_answer_says_what_the_test_does_not_cover(tmp_path: Path) -> None:
    assert "does not cover another seed" in " ".join(compare(two(tmp_path)).answer)


def test_runs_that_differ_by_seed_alone_are_said_to(tmp_path: Path) -> None:
    assert "differ by seed alone" in compare(two(tmp_path, config=composed(*SMALL, "seed=1"))).answer[-1]


def test_other_test_images_are_one_line_and_no_test(tmp_path: Path) -> None:
    found = compare(two(tmp_path, images=facts(test="other")))
    assert found.pairs == []
    assert found.answer == [
        "Whether the difference is more than chance cannot be told: no two runs were tested on the same images.",
        "Not tested: B: was tested on other images than A.",
    ]


def test_shipped_weights_have_no_predictions_to_test() -> None:
    found = compare([Path("s9/models/weights") / name for name in ("teacher_small", "teacher")])
    assert "fewer than two runs have test predictions" in found.answer[0]
    assert found.results["test accuracy"] == ["90.59 %", "90.90 %"]


def test_jobs_of_one_sweep_are_chosen_by_val(tmp_path: Path) -> None:
    group = {"group": "grid"}
    paths = [make_run(tmp_path / name, [1, 0], status=group) for name in "ab"]
    assert compare(paths).warnings[0].startswith("2 of these runs are jobs of the sweep grid: choose among them by val")


def test_three_runs_are_told_by_pairs_after_holm(tmp_path: Path) -> None:
    right = [[1] * 40, [1] * 39 + [0], [1] * 20 + [0] * 20]
    found = compare([make_run(tmp_path / str(n), one) for n, one in enumerate(right)])
    assert found.answer[0].startswith("2 of 3 pairs of runs differ by more than chance: A over C")
    assert "All of these runs get 0 of 40 test images wrong." in found.answer


def test_an_unfinished_run_is_compared_as_far_as_it_is(tmp_path: Path) -> None:
    paths = two(tmp_path, status={"state": "interrupted"})
    for name in ("summary.json", "predictions.npz"):
        (paths[1] / name).unlink()
    found = compare(paths)
    assert found.results["best val accuracy"] == ["50.00 %", "50.00 %"]
    assert found.results["test accuracy"] == ["75.00 %", "-"]


@pytest.mark.parametrize("name", ["summary.json", "images.json", "metrics.jsonl", "config.yaml", "predictions.npz"])
@pytest.mark.parametrize("content", [b"", b"{half", b"[1]\n[2]\n", b'{"val": 3, "machine": [], "best": "x"}\n'])
def test_a_damaged_file_ends_no_comparison(name: str, content: bytes, tmp_path: Path) -> None:
    paths = two(tmp_path)
    (paths[1] / name).write_bytes(content)
    assert screen(compare(paths))


# The screen


def test_the_screen_names_images_that_only_one_gets_right(tmp_path: Path) -> None:
    names = ["ant/1.png", "bee/1.png", "cat/1.png"]
    paths = [make_run(tmp_path / name, one, names=names) for name, one in (("a", [1, 1, 0]), ("b", [1, 0, 0]))]
    said = words(compare(paths))
    assert "only A: 1: bee/1.png (bee; B: cat) only B: 0 all wrong: 1: cat/1.png (cat)" in said


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("count", [2, 5])
def test_no_line_is_wider_than_the_screen_and_no_number_is_lost(count: int, width: int, tmp_path: Path) -> None:
    paths = [
        make_run(
            tmp_path / f"{n}-{'long' * 20}", [1, n % 2] * 8, config=composed(*SMALL, f"optimizer.lr=0.{n + 1}234567")
        )
        for n in range(count)
    ]
    lines = screen(compare(paths), width)
    assert max(map(len, lines)) <= width
    assert all(any(f"0.{n + 1}234567" in line for line in lines) for n in range(count))
    assert "…" not in "".join(lines)


def test_long_lists_of_layers_are_counted(tmp_path: Path) -> None:
    paths = two(tmp_path, config=composed("data=digits", "model=dilated", "aug=none", "wandb=disabled", SMALL[3]))
    assert "and 30 keys of model.blocks, which are on the page" in words(compare(paths))


@pytest.mark.parametrize("name", ["[red]x[/red]", "\x1b[31mx", "two\nlines", HARD, "\udcff"], ids=ascii)
def test_any_name_is_shown_as_text_in_one_line(name: str, tmp_path: Path) -> None:
    paths = [make_run(tmp_path / folder, right, names=[name]) for folder, right in (("a", [1]), ("b", [0]))]
    spelled = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
    assert f"only A: 1: {spelled} (ant; B: bee)" in screen(compare(paths))


# The door


def test_it_prints_and_writes_the_page(tmp_path: Path) -> None:
    two(tmp_path)
    done = run(tmp_path, "compare", "a", "b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("page: outputs/compare/a-b.html\n")
    assert (tmp_path / "outputs" / "compare" / "a-b.html").stat().st_size > 100_000


def test_page_chooses_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*map(str, two(tmp_path)), f"page={tmp_path / 'mine.html'}"])
    assert (tmp_path / "mine.html").is_file()


def test_what_is_printed_does_not_depend_on_who_reads_it(tmp_path: Path) -> None:
    two(tmp_path)
    assert "\x1b" not in run(tmp_path, "compare", "a", "b").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no run is given; python -m s9.compare outputs/<a>"),
        (["a"], "a: give two runs or more"),
        (["a", "nowhere"], "nowhere: there is no such folder"),
        (["a", "a/config.yaml"], "a/config.yaml: is no folder"),
        (["a", "empty"], "empty: there is no run in it; give runs, as outputs/"),
        (["a", "./a/"], "a: is given twice"),
        (["a", "sweep"], "sweep: is a sweep; python -m s9.report sweep=sweep compares its jobs, on val"),
        (["a", "b", "page="], "page=: give one file"),
        (["a", "b", "page=empty"], "page=empty: is a folder; give a file, as page=empty/comparison.html"),
        (["a", "b", "page=a/config.yaml/x.html"], "page=a/config.yaml/x.html: cannot be written"),
    ],
)
def test_a_mistake_is_one_plain_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        main(arguments)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_a_mistake_ends_the_process_with_2(tmp_path: Path) -> None:
    assert "there is no such folder" in error_line(run(tmp_path, "compare", "a", "b"), 2)


def test_runs_of_one_name_get_a_page_named_after_what_tells_them_apart() -> None:
    assert default_page([Path("x/1/run"), Path("x/2/run")]) == Path("outputs/compare/1-run-2-run.html")


def test_more_than_two_runs_are_counted_in_the_pages_name() -> None:
    paths = [Path(f"outputs/{name}") for name in "abcd"]
    assert re.fullmatch(r"outputs/compare/a-b-and-2-more-[0-9a-f]{6}\.html", str(default_page(paths)))
    assert default_page(paths) != default_page([*paths[:3], Path("outputs/e")])


def test_a_summary_without_names_or_numbers_is_compared(tmp_path: Path) -> None:
    paths = two(tmp_path)
    rewritten(paths[1], name=None, seed=None, epochs=None, parameters="many", val=None)
    assert "parameters 1,234 -" in words(compare(paths))
