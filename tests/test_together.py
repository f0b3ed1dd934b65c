"""What all ranks must call together: a call that one of them does not make ends the run soon, and names the call."""

import time
from contextlib import suppress
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from s9.cli.compose import compose_config
from s9.config.schema import TrainerConfig
from s9.training import ranks as ranks_module
from s9.training.ranks import RankLostError, Ranks, joined
from s9.training.step import NonFiniteLossError

CPU = torch.device("cpu")
PATIENCE_S = 40  # a rank's process takes seconds to start

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


def same_calls(ranks: Ranks) -> None:
    assert ranks.from_rank_0("images", None) == "rank 0's"
    assert ranks.any_of_all("due", ranks.rank == 1)
    assert ranks.all_sum("sums", torch.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]


def no_call(ranks: Ranks) -> None:
    time.sleep(60)


def another_call(ranks: Ranks) -> None:
    ranks.from_rank_0("images", None)
    time.sleep(60)


def ends(ranks: Ranks) -> None:
    pass


def waits_for_rank_0_to_leave(ranks: Ranks) -> None:
    """As nccl may, when a rank leaves the group."""
    received = dist.irecv(torch.zeros(1), src=0)
    assert received is not None
    with suppress(RuntimeError):  # rank 0 has left
        received.wait(timedelta(seconds=PATIENCE_S))


def fails(ranks: Ranks) -> None:
    raise NonFiniteLossError("loss is nan in epoch 1")


@pytest.fixture
def two() -> TrainerConfig:
    return compose_config(["data=digits", "trainer.devices=2", "trainer.threads=1"]).trainer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_module, "TIMEOUT", timedelta(seconds=PATIENCE_S // 4))


def test_what_all_ranks_call_gives_all_of_them_the_same(two: TrainerConfig) -> None:
    with joined(two, CPU, same_calls) as ranks:
        assert ranks.from_rank_0("images", "rank 0's") == "rank 0's"
        assert ranks.any_of_all("due", False)
        assert ranks.all_sum("sums", torch.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]


@pytest.mark.slow
@pytest.mark.parametrize("follow", [no_call, another_call], ids=lambda follow: follow.__name__)
@pytest.mark.usefixtures("impatient")
def test_a_call_that_another_rank_does_not_make_is_named(follow: object, two: TrainerConfig) -> None:
    started = time.monotonic()
    with (
        pytest.raises(RankLostError, match=r"rank \d waited in vain for the other ranks in «(due|images)»"),
        joined(two, CPU, follow) as ranks,  # type: ignore[arg-type]
    ):
        ranks.any_of_all("due", False)
    assert time.monotonic() - started < PATIENCE_S


@pytest.mark.slow
def test_a_rank_that_has_ended_while_another_calls_is_named(two: TrainerConfig) -> None:
    with pytest.raises(RankLostError, match=r"rank 1 \(pid \d+\) has ended"), joined(two, CPU, ends) as ranks:
        for _ in range(1000):
            ranks.any_of_all("due", False)


def test_rank_0_leaves_the_group_before_it_waits_for_the_others(two: TrainerConfig) -> None:
    with joined(two, CPU, waits_for_rank_0_to_leave) as ranks:
        assert ranks.world == 2
        ended = time.monotonic()
    assert time.monotonic() - ended < PATIENCE_S


@pytest.mark.slow
def test_why_another_rank_failed_is_told(two: TrainerConfig) -> None:
    with pytest.raises(RankLostError, match="loss is nan in epoch 1"), joined(two, CPU, fails) as ranks:
        for _ in range(1000):
            ranks.all_sum("losses", torch.zeros(1))


def test_a_rank_that_is_alone_asks_nobody() -> None:
    ranks = Ranks()
    assert ranks.from_rank_0("images", 3) == 3
    assert not ranks.any_of_all("due", False)
    assert ranks.all_sum("sums", torch.ones(2)).tolist() == [1.0, 1.0]
