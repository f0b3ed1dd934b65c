"""What is said of a run's pace: nothing while it is even, one line where steps come to take far longer."""

import logging

import pytest
import torch

from s9.tracking.progress import MANY_STEPS, Pace, Progress
from s9.training.loop import StepDone


def slower(*seconds: float) -> list[tuple[float, float]]:
    """What is said while steps take these seconds, each for one look."""
    pace = Pace()
    steps = [one for each in seconds for one in [each] * MANY_STEPS]
    return [said for one in steps if (said := pace.slower(one)) is not None]


@pytest.mark.parametrize("seconds", [[1, 1, 1], [1, 1.5, 1.6, 1.5], [3, 1, 1, 1], [1, 9, 1, 9, 1]])
def test_an_even_or_a_briefly_uneven_pace_is_not_told(seconds: list[float]) -> None:
    assert slower(*seconds) == []


def test_a_pace_that_stays_far_slower_is_told_once() -> None:
    assert slower(1, 1, 2, 2, 3, 3, 3) == [(1, 2)]


def test_larger_images_are_no_slow_pace() -> None:
    pace = Pace()
    steps = [(seconds, size) for seconds, size in ((1, 16), (3, 24), (6, 32)) for _ in range(3 * MANY_STEPS)]
    assert [pace.slower(seconds, size) for seconds, size in steps] == [None] * len(steps)


def test_a_slow_pace_among_images_of_one_size_is_told() -> None:
    pace = Pace()
    steps = [(seconds, size) for seconds, size in ((1, 16), (3, 24), (6, 24)) for _ in range(3 * MANY_STEPS)]
    assert [said for seconds, size in steps if (said := pace.slower(seconds, size))] == [(3, 6)]


def test_the_time_left_counts_the_work_of_the_epochs_to_come(caplog: pytest.LogCaptureFixture) -> None:
    """The first of three epochs took a second, and the other two are nine times as much work together."""
    with caplog.at_level(logging.INFO):
        Progress(3, work=lambda epoch: [0.0, 1.0, 4.0, 10.0][epoch]).epoch_end(RECORD, 0)
    assert caplog.messages[0].endswith("1.0 s, 9 s left")


def test_one_long_step_is_no_slow_pace() -> None:
    """A run that was paused, a checkpoint on a slow disk."""
    pace = Pace()
    steps = [1.0] * MANY_STEPS + ([1.0] * (MANY_STEPS - 1) + [1000.0]) * 3
    assert [pace.slower(one) for one in steps] == [None] * len(steps)


def test_looks_at_fast_steps_span_seconds_not_steps_alone() -> None:
    pace = Pace()
    steps = [0.001] * 10_100 + [0.002] * 6_000  # the second part is of 12 s: one look
    assert [said for one in steps if (said := pace.slower(one))] == []


@pytest.mark.parametrize(("device", "threads", "advised"), [("cpu", 2, True), ("cpu", 1, False), ("cuda", 2, False)])
def test_the_line_says_what_to_set_where_something_can_be_set(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, device: str, threads: int, advised: bool
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    shown = Progress(epochs=1)
    with caplog.at_level(logging.WARNING):
        for seconds in [0.5] * MANY_STEPS + [1.0] * 2 * MANY_STEPS:
            shown.note_pace(seconds, device)
    (line,) = caplog.messages
    assert line.startswith("steps take 2.0 times as long as before (1000 ms, were 500): another program may be using")
    assert ("trainer.threads=1" in line) == advised


RECORD = {"epoch": 1, "train/loss": 1.0, "train/accuracy": 0.5, "lr": 0.1, "time/epoch_s": 1.0}
VAL = {"val/loss": 0.41, "val/accuracy": 40 / 48, "val/balanced_accuracy": 0.712}


@pytest.mark.parametrize(
    ("balanced", "said"), [(False, "40/48 (83.33 %) |"), (True, "40/48 (83.33 %, balanced 71.20 %) |")]
)
def test_the_line_of_an_epoch_has_the_balanced_accuracy_where_it_is_asked_for(
    caplog: pytest.LogCaptureFixture, balanced: bool, said: str
) -> None:
    with caplog.at_level(logging.INFO):
        Progress(1, balanced=balanced).epoch_end(RECORD | VAL, 48)
    (line,) = caplog.messages
    assert f"val loss 0.4100, {said}" in line


@pytest.mark.parametrize(("spins", "advised"), [("0", False), ("300000", True)])
def test_resuming_is_advised_where_the_threads_spin(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, spins: str, advised: bool
) -> None:
    """A process looks at what else runs when it starts."""
    monkeypatch.setenv("GOMP_SPINCOUNT", spins)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    shown = Progress(epochs=1)
    with caplog.at_level(logging.WARNING):
        for seconds in [0.5] * MANY_STEPS + [1.0] * 2 * MANY_STEPS:
            shown.note_pace(seconds, "cpu")
    assert ("interrupted and resumed" in caplog.messages[0]) == advised


def test_scoring_and_saving_between_epochs_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr("s9.tracking.progress.time.monotonic", lambda: next(clock))
    shown = Progress(epochs=2)
    taken: list[float] = []
    monkeypatch.setattr(shown, "note_pace", lambda seconds, device, size: taken.append(seconds))
    one = torch.zeros(())
    for epoch in (1, 2):
        for batch in (1, 2, 3):
            shown.step(StepDone(epoch=epoch, batch=batch, batches=3, images=4, size=32, loss_sum=one, correct=one))
        record = {"train/loss": 1.0, "train/accuracy": 0.5, "lr": 0.1, "time/epoch_s": 1.0}
        shown.epoch_end({"epoch": float(epoch)} | record, 0)
    assert taken == [100, 100, 100, 100]
