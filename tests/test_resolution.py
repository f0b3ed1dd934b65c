"""Progressive resizing, and the operations of a run: which sizes are trained when, and what they cost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from s9.config.model import LayerConfig
from s9.config.schema import Config, DistillationConfig, ResolutionConfig
from s9.models.analysis import model_facts
from s9.models.s9net import S9Net
from s9.runs.run import train
from s9.system.errors import UserError
from s9.training.distillation import Teacher
from s9.training.operations import operations
from s9.training.resolution import resized, size_at, sizes
from s9.training.step import compiled
from tests.conftest import composed
from tests.test_loop import prepare

HALF = ResolutionConfig(start=0.5, hold=0.5, full=0.8)
GROWING = ("trainer.resolution.start=0.5", "trainer.resolution.hold=0.4", "trainer.resolution.full=0.8")


def test_by_default_all_images_are_whole() -> None:
    assert list(sizes(composed("data=digits").trainer, 32, steps=7, total_steps=7)) == [(32, 7)]


def test_the_first_images_are_small_and_the_last_ones_whole() -> None:
    assert [size_at(HALF, progress, 32) for progress in (0, 0.49, 0.8, 0.99)] == [16, 16, 32, 32]


def test_in_between_the_images_grow_in_equal_times() -> None:
    growing = ResolutionConfig(start=0.5, hold=0.25, full=0.75)
    trainer = replace(composed("data=digits").trainer, resolution=growing)
    assert list(sizes(trainer, 24, steps=16, total_steps=16)) == [(12, 4), (16, 4), (20, 4), (24, 4)]


def test_without_a_size_in_between_the_first_one_stays_until_the_images_are_whole() -> None:
    assert size_at(ResolutionConfig(start=0.9, hold=0.2, full=0.6), 0.5, 32) == 29


def test_a_smaller_image_keeps_a_plain_colour() -> None:
    torch.testing.assert_close(resized(torch.full((2, 3, 32, 32), 0.3), 20), torch.full((2, 3, 20, 20), 0.3))


def test_half_the_size_averages_neighbours_and_drops_none() -> None:
    """A single bright pixel anywhere is seen: plain sampling would miss three of four."""
    images = torch.eye(64).reshape(64, 1, 8, 8)
    assert (resized(images, 4).sum((1, 2, 3)) > 0.1).all()


def test_training_sees_these_sizes_in_this_order() -> None:
    run, seen = prepare(*GROWING), []
    first = next(iter(run.model.layers.values()))
    first.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape[-1]) if module.training else None
    )
    size = run.data.facts.image_size
    list(run.fit())
    assert seen == [
        count for count, steps in sizes(run.config.trainer, size, steps=10, total_steps=10) for _ in range(steps)
    ]
    assert seen[0] == size // 2 and seen[-1] == size and len(set(seen)) > 2


@pytest.mark.slow  # compiles a network of three layers once for each image size
def test_a_compiled_network_with_a_dilated_layer_takes_images_that_grow() -> None:
    layers = {"conv1": LayerConfig(channels=4), "conv2": LayerConfig(channels=4, separable=True, dilation=2)}
    config = replace(composed("data=digits", "model=strided").model, blocks={"C1": layers}, whiten=False)
    plain = S9Net(config, prepare().data.facts)
    forward = compiled(plain, torch.device("cpu"))
    for size in (16, 24, 32):
        images = torch.rand(2, 3, size, size)
        torch.testing.assert_close(forward(images), plain(images))


def test_more_image_sizes_than_torch_compiles_by_itself_are_all_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, compiler = CompileCounter(), torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda model, mode, dynamic: compiler(model, backend=counter, dynamic=dynamic)
    )
    with torch._dynamo.config.patch(recompile_limit=8):
        torch._dynamo.reset()
        run = prepare(*GROWING, "trainer.compile=true", "trainer.epochs=4")
        run.data = replace(run.data, facts=replace(run.data.facts, image_size=96))
        run.data = replace(run.data, val=run.data.val.take(slice(0, 0)))
        list(run.fit())
    assert counter.frame_count == len(list(sizes(run.config.trainer, 96, steps=20, total_steps=20))) > 8


def test_val_is_scored_with_whole_images() -> None:
    run, seen = prepare(*GROWING), set()
    first = next(iter(run.model.layers.values()))
    first.register_forward_pre_hook(lambda module, inputs: None if module.training else seen.add(inputs[0].shape[-1]))
    list(run.fit())
    assert seen == {run.data.facts.image_size}


def test_a_network_that_shrinks_small_images_to_nothing_is_refused_in_one_line(tmp_path: Path) -> None:
    config = composed("data=digits", "model=dilated", "wandb=disabled", "trainer=quick", "trainer.resolution.start=0.3")
    with pytest.raises(
        UserError, match=r"start=0\.3: too small for dilated: .*C2\.conv3: leaves no pixel of a 10 x 10 input"
    ) as caught:
        train(config, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_batch_norm_that_small_images_leave_one_value_is_refused_in_one_line(tmp_path: Path) -> None:
    one = ("trainer.batch_size=1", "trainer.resolution.start=0.5", "trainer.steps_per_epoch=2", "trainer.epochs=5")
    config = composed("data=digits", "model=strided", "wandb=disabled", "aug=none", *one)
    with pytest.raises(UserError, match=r"^trainer\.batch_size=1: batch norm needs more .* gives 1 x 1 pixels"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value"), [("start", 0), ("start", 1.1), ("hold", -0.1), ("hold", 0.9), ("full", 0.4), ("full", 1.1)]
)
def test_a_value_out_of_range_is_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(UserError, match=r"^trainer\.resolution\."):
        replace(HALF, **{key: value})


def cost(config: Config, steps: int, total_steps: int) -> int:
    return operations(config, prepare().data.facts, batch_size=32, steps=steps, total_steps=total_steps)


def test_a_step_of_whole_images_costs_six_operations_a_multiply() -> None:
    config, facts = composed("data=digits"), prepare().data.facts
    assert cost(config, steps=3, total_steps=9) == 6 * 32 * 3 * model_facts(config.model, facts).multiplies


def test_the_operations_are_those_that_torch_counts() -> None:
    """Of one step, but for the gradient of the first layer's images, which no step computes."""
    from torch.utils.flop_counter import FlopCounterMode

    config, facts = composed("data=digits", "model=reference"), prepare().data.facts
    model = S9Net(config.model, facts)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(32, 3, facts.image_size, facts.image_size)).sum().backward()
    first = 2 * 32 * model_facts(config.model, facts).table[0].multiplies
    assert counter.get_total_flops() == pytest.approx(cost(config, steps=1, total_steps=1) - first, rel=0.01)


def test_small_images_cost_less() -> None:
    whole, small = cost(composed("data=digits"), steps=8, total_steps=8), composed("data=digits", *GROWING)
    assert 0.3 * whole < cost(small, steps=8, total_steps=8) < 0.8 * whole


def test_a_teacher_costs_its_forward_pass() -> None:
    config, teacher = composed("data=digits"), composed("data=digits", "model=dilated").model
    facts = prepare().data.facts
    taught = operations(config, facts, batch_size=32, steps=2, total_steps=2, teachers=[teacher])
    assert taught - cost(config, steps=2, total_steps=2) == 2 * 32 * 2 * model_facts(teacher, facts).multiplies


def test_a_teacher_sees_whole_images_also_while_the_student_sees_small_ones() -> None:
    run, seen = prepare(*GROWING, "trainer.epochs=1"), set()
    teacher = S9Net(run.config.model, run.data.facts)
    teacher.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].shape[-1]))
    list(run.fit(teacher=Teacher([teacher], DistillationConfig())))
    assert seen == {run.data.facts.image_size}


def test_a_finished_run_says_its_operations(digits: Callable[..., Config], tmp_path: Path, no_figures: None) -> None:
    config = digits("trainer.epochs=1", "trainer.steps_per_epoch=4", "trainer.batch_size=32", "wandb=disabled")
    summary = train(config, tmp_path / "run")
    assert summary["operations"] == 6 * 32 * 4 * summary["multiplies"]
