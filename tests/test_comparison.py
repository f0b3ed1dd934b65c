"""A run that is scored again: which differences are rounding, and which say that something is wrong."""

from typing import Any

import pytest

from s9.tracking.comparison import compared, other_machine

MACHINE: dict[str, Any] = {
    "processor": "AMD EPYC, 2 cores",
    "capability": "AVX512",
    "device": "cpu",
    "system": "Linux",
    "threads": 2,
    "precision": "bfloat16",
    "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
}
SCORES = {"accuracy": 0.9060, "accuracy_flip": 0.9090, "loss": 0.36, "correct": 9060, "total": 10000}
STORED = {"machine": MACHINE, "test": SCORES}


def test_the_same_numbers_are_the_same() -> None:
    assert compared(STORED, SCORES, "test", MACHINE) == (["the same as in summary.json"], False)


def test_a_score_that_an_older_summary_lacks_is_not_compared() -> None:
    scores = SCORES | {"balanced_accuracy": 0.9}
    assert compared(STORED, scores, "test", MACHINE) == (["the same as in summary.json"], False)


def test_other_numbers_on_the_same_machine_are_not_explained() -> None:
    lines, unexplained = compared(STORED, SCORES | {"accuracy": 0.9055}, "test", MACHINE)
    assert unexplained
    assert lines == [
        "differs from summary.json in accuracy",
        "precision: bfloat16 in the run, bfloat16 here",
        "accuracy by 0.05 points (5 of 10,000 images), loss by 0.0000: on the same machine, in the same precision",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "float32"}, "precision bfloat16 then, float32 now"),
        ({"capability": "AVX2"}, "capability AVX512 then, AVX2 now"),
        ({"threads": 1}, "threads 2 then, 1 now"),
        ({"device": "NVIDIA H100"}, "device cpu then, NVIDIA H100 now"),
        ({"versions": {"torch": "2.14.1"}}, "torch 2.15.0 then, 2.14.1 now"),
    ],
)
def test_on_another_machine_what_differs_is_named_and_rounding_is_called_so(change: dict[str, Any], said: str) -> None:
    lines, unexplained = compared(STORED, SCORES | {"accuracy": 0.9055, "loss": 0.3601}, "test", MACHINE | change)
    assert not unexplained
    assert lines[0] == "differs from summary.json in accuracy, loss"
    assert lines[2] == f"on another machine: {said}"
    assert lines[3] == "accuracy by 0.05 points (5 of 10,000 images), loss by 0.0001: within rounding"


def test_more_than_rounding_is_not_called_rounding() -> None:
    lines, unexplained = compared(STORED, SCORES | {"accuracy": 0.85}, "test", MACHINE | {"precision": "float32"})
    assert not unexplained and lines[3].endswith("more than rounding: are the images and versions the same?")


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_precisions_of_both_are_in_one_line(precision: str) -> None:
    machine = MACHINE | {"precision": precision, "processor": "another"}
    lines, _ = compared(STORED, SCORES | {"accuracy": 0.9055}, "test", machine)
    assert lines[1] == f"precision: bfloat16 in the run, {precision} here"


@pytest.mark.parametrize(("wrong", "said"), [(1, "within rounding"), (2, "within rounding"), (3, "more than rounding")])
def test_of_a_small_set_two_images_are_within_rounding(wrong: int, said: str) -> None:
    small = {"accuracy": 0.9, "loss": 0.36, "correct": 90, "total": 100}
    now = small | {"accuracy": (90 - wrong) / 100, "correct": 90 - wrong}
    lines, _ = compared(STORED | {"test": small}, now, "test", MACHINE | {"precision": "float32"})
    assert f"({wrong} of 100 images)" in lines[3] and said in lines[3]


def test_the_same_numbers_on_another_machine_are_said_with_the_precisions() -> None:
    lines, unexplained = compared(STORED, SCORES, "test", MACHINE | {"precision": "float32"})
    assert not unexplained
    assert lines == ["the same as in summary.json", "precision: bfloat16 in the run, float32 here"]


def test_a_split_that_the_summary_lacks_is_not_called_the_same() -> None:
    assert compared(STORED, SCORES, "val", MACHINE) == (["summary.json has no scores of val to compare with"], False)


def test_an_older_summary_does_not_record_all_of_it() -> None:
    older = {"processor": "AMD EPYC, 2 cores", "device": "cpu", "system": "Linux", "versions": {"torch": "2.15.0"}}
    said = other_machine(older, MACHINE)
    assert said == [f"{key} not recorded then, {MACHINE[key]} now" for key in ("capability", "threads", "precision")]


def test_another_version_of_another_package_rounds_nothing() -> None:
    assert other_machine(MACHINE, MACHINE | {"versions": {"torch": "2.15.0", "numpy": "9"}}) == []
