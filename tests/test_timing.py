"""Times taken in turns: every piece of work once a round, warm-up rounds left out, medians with their spread."""

import time

import pytest
import torch

from s9.benchmarks.timing import Row, row, seconds_in_turns

CPU = torch.device("cpu")


def ran(repeats: int, warm_up: int) -> list[str]:
    """The order in which two pieces of work were run."""
    order: list[str] = []
    seconds_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats, CPU, warm_up)
    return order


def test_the_pieces_of_work_take_turns() -> None:
    assert ran(repeats=3, warm_up=0) == ["a", "b"] * 3


def test_warm_up_rounds_come_on_top() -> None:
    assert ran(repeats=3, warm_up=2) == ["a", "b"] * 5


@pytest.mark.parametrize("warm_up", [0, 2])
def test_each_piece_has_as_many_times_as_repeats(warm_up: int) -> None:
    seconds = seconds_in_turns({"a": lambda: None, "b": lambda: None}, 3, CPU, warm_up)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_what_is_slow_only_at_first_is_left_out() -> None:
    waits = iter([0.2, 0.2, 0.0, 0.0, 0.0])
    seconds = seconds_in_turns({"a": lambda: time.sleep(next(waits))}, 3, CPU, warm_up=2)
    assert max(seconds["a"]) < 0.2


def test_a_time_is_that_of_its_own_work() -> None:
    seconds = seconds_in_turns({"slow": lambda: time.sleep(0.05), "fast": lambda: None}, 3, CPU)
    assert min(seconds["slow"]) >= 0.05 > min(seconds["fast"])


def test_a_row_has_the_median_the_lowest_and_the_highest() -> None:
    assert row("step", "s9", "images/s", [5.0, 1.0, 2.0, 100.0, 3.0]) == Row(
        "step", "s9", "images/s", 3.0, 1.0, 100.0, 5
    )


def test_the_median_of_two_is_their_middle() -> None:
    assert row("step", "s9", "images/s", [1.0, 4.0]).median == 2.5


def test_a_ratio_is_the_quotient_of_the_medians() -> None:
    slow = row("step", "naive", "images/s", [1.0, 2.0, 9.0])
    fast = row("step", "s9", "images/s", [4.0, 5.0, 6.0], than=slow)
    assert (fast.ratio, fast.against) == (2.5, "naive")


def test_a_row_that_stands_alone_has_no_ratio() -> None:
    alone = row("growth", "batch 64", "images/s", [4.0])
    assert (alone.ratio, alone.against) == (None, None)


@pytest.mark.gpu
def test_a_time_on_a_gpu_is_that_until_it_is_done() -> None:
    cuda = torch.device("cuda")
    matrix = torch.rand(8192, 8192, device=cuda)

    def multiply() -> None:
        for _ in range(10):
            matrix @ matrix

    (waited,) = seconds_in_turns({"a": multiply}, 1, cuda)["a"]
    started = time.perf_counter()
    multiply()
    launched = time.perf_counter() - started
    torch.cuda.synchronize()
    assert waited > 2 * launched
