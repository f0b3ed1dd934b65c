"""The paired statistics: against published numbers, in the long run, and on images in whatever order."""

from pathlib import Path

import numpy as np
import pytest

from s9.tracking.compared_run import read_runs
from s9.tracking.folder import RunFolder
from s9.tracking.paired import holm, mcnemar, newcombe, pair_of, pairs_of
from s9.tracking.same_images import SameImages, same_images
from tests.compared_runs import as_before_names, facts, make_run, rewritten, write_predictions

NAMES = ("ant/1", "bee/1", "cat/1", "ant/2", "bee/2", "cat/2")


def same_of(*paths: Path) -> SameImages:
    return same_images(read_runs(paths))


@pytest.mark.parametrize(
    ("counts", "p"),
    [((1, 7), 0.0703125), ((7, 1), 0.0703125), ((5, 0), 0.0625), ((0, 10), 2 / 2**10), ((0, 0), 1.0), ((6, 6), 1.0)],
)
def test_p_is_that_of_fair_coins(counts: tuple[int, int], p: float) -> None:
    assert mcnemar(*counts) == pytest.approx(p)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((1, 1, 7, 12), -0.507, -0.026),  # Bentur et al. 2009, in Fagerland, Lydersen and Laake, Stat. Med. 33 (2014)
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman et al., Statistics with Confidence (2000), table 6.2
    ],
)
def test_the_interval_is_the_published_one(table: tuple[int, int, int, int], low: float, high: float) -> None:
    assert newcombe(*table) == pytest.approx((low, high), abs=0.0006)


def test_the_interval_of_the_other_order_is_its_mirror() -> None:
    low, high = newcombe(50, 20, 8, 22)
    assert newcombe(50, 8, 20, 22) == pytest.approx((-high, -low))


@pytest.mark.parametrize("table", [(10, 0, 0, 0), (0, 0, 0, 10), (0, 10, 0, 0), (0, 0, 1, 0)])
def test_the_interval_of_an_extreme_table_stays_within_one(table: tuple[int, int, int, int]) -> None:
    low, high = newcombe(*table)
    assert -1 <= low <= (table[1] - table[2]) / sum(table) <= high <= 1


def test_the_interval_holds_the_true_difference_in_about_95_of_100_draws() -> None:
    shares, rng = np.array([0.8, 0.07, 0.03, 0.1]), np.random.default_rng(0)
    intervals = [newcombe(*map(int, rng.multinomial(500, shares))) for _ in range(300)]
    assert 0.92 <= np.mean([low <= 0.04 <= high for low, high in intervals]) <= 0.98


def test_where_nothing_differs_at_most_five_in_a_hundred_are_called_more_than_chance() -> None:
    rng = np.random.default_rng(0)
    both_differ = [pair_of("A", "B", *(rng.random((2, 300)) < 0.8)) for _ in range(300)]
    assert 0.01 <= np.mean([pair.differs for pair in both_differ]) <= 0.065


def test_holm_multiplies_the_smallest_most_and_keeps_the_order() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_holm_gives_no_more_than_one() -> None:
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_pair_counts_each_image_once() -> None:
    pair = pair_of("A", "B", np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool))
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (1, 2, 1, 1)
    assert pair.difference == pytest.approx(0.2)


def test_three_runs_are_three_pairs_with_p_adjusted_over_them(tmp_path: Path) -> None:
    right = [[1] * 30, [1] * 20 + [0] * 10, [1] * 21 + [0] * 9]
    pairs = pairs_of(same_of(*(make_run(tmp_path / str(n), one) for n, one in enumerate(right))))
    assert [(pair.first, pair.second) for pair in pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [pair.adjusted for pair in pairs] == holm([pair.p for pair in pairs])
    assert pairs[0].adjusted == pytest.approx(3 * pairs[0].p)


def test_images_that_one_alone_gets_right_are_found_in_both_directions(tmp_path: Path) -> None:
    same = same_of(make_run(tmp_path / "a", [1, 1, 0, 0]), make_run(tmp_path / "b", [1, 0, 1, 0]))
    assert [list(same.only("A")), list(same.only("B")), list(same.wrong_by_all())] == [[1], [2], [3]]


def test_images_with_names_are_matched_by_name(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [1, 0, 1, 1, 1, 1], names=NAMES)
    b = make_run(tmp_path / "b", [1, 1, 1, 1, 0, 1], names=(*NAMES[3:], *NAMES[:3]))
    same = same_of(a, b)
    assert [list(same.names[same.only(label)]) for label in "AB"] == [[], []]
    assert list(same.names[same.wrong_by_all()]) == ["bee/1"]


def test_without_names_the_same_images_are_matched_by_position(tmp_path: Path) -> None:
    same = same_of(make_run(tmp_path / "a", [1, 0, 1]), make_run(tmp_path / "b", [1, 1, 1]))
    assert list(same.names[same.only("B")]) == ["test image 1"]


def test_names_of_one_run_name_the_images_of_an_older_one(tmp_path: Path) -> None:
    old, new = make_run(tmp_path / "old", [1, 0, 1]), make_run(tmp_path / "new", [1, 1, 1], names=NAMES[:3])
    as_before_names(old)
    assert list(same_of(old, new).names) == ["ant/1", "bee/1", "cat/1"]


def test_classes_in_another_order_are_compared_by_name(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", [1, 1, 1], names=NAMES[:3]), make_run(tmp_path / "b", None)
    turned = facts(classes=("cat", "ant", "bee"))
    write_predictions(RunFolder(b), [1, 1, 0], turned, ("cat/1", "ant/1", "bee/1"))
    same = same_of(a, b)
    assert list(same.names[same.only("A")]) == ["bee/1"]
    assert list(same.predicted[1]) == ["ant", "cat", "cat"]


def test_other_test_images_are_not_compared(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", [1, 1]), make_run(tmp_path / "b", [1, 0], images=facts(test="other"))
    same = same_of(a, b)
    assert (same.labels, same.left_out) == (("A",), ("B: was tested on other images than A",))


def test_the_larger_set_with_the_same_images_is_compared(tmp_path: Path) -> None:
    other = make_run(tmp_path / "a", [1, 1], images=facts(test="other"))
    assert same_of(other, *(make_run(tmp_path / name, [1, 0]) for name in "bc")).labels == ("B", "C")


def test_another_train_does_not_hinder_the_comparison_on_test(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", [1, 1]), make_run(tmp_path / "b", [1, 0], images=facts(train="more"))
    assert same_of(a, b).labels == ("A", "B")


def test_runs_without_images_json_are_compared_by_the_summarys_fingerprint(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, [1, 0]) for name in "ab"]
    for path in paths:
        (path / "images.json").unlink()
    assert same_of(*paths).labels == ("A", "B")


def test_runs_whose_images_are_not_recorded_are_not_compared(tmp_path: Path) -> None:
    paths = [rewritten(make_run(tmp_path / name, [1, 0]), images=None) for name in "ab"]
    for path in paths:
        (path / "images.json").unlink()
    assert same_of(*paths).left_out == ("B: which test images it used is not recorded",)


def test_damaged_predictions_leave_the_run_out(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, [1, 0]) for name in "abc"]
    (paths[1] / "predictions.npz").write_bytes(b"half")
    same = same_of(*paths)
    assert same.labels == ("A", "C") and "predictions of B" in same.left_out[0]


def test_predictions_whose_arrays_do_not_fit_are_damaged(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, [1, 0]) for name in "ab"]
    np.savez(paths[1] / "predictions.npz", probs=np.ones((2, 3)), labels=np.array([0, 7]), class_names=["a", "b", "c"])
    assert same_of(*paths).labels == ("A",)


def test_a_stored_picture_belongs_to_its_image(tmp_path: Path) -> None:
    same = same_of(make_run(tmp_path / "a", [1, 1, 0]), make_run(tmp_path / "b", [0, 1, 1]))
    assert sorted(same.pictures) == [0, 2]
