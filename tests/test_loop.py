"""The training loop: its records, its repeatability, what it refuses, and what really reaches the weights."""

import copy
import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

from s9.config.data import DigitsConfig
from s9.config.schema import Config
from s9.data.augmentation.augment import build_augment
from s9.data.image_set import ImageSet
from s9.data.keys import seed_everything
from s9.data.loaders import TrainLoader, train_loader
from s9.data.sources.load import load_images
from s9.models.s9net import S9Net
from s9.system.compute import Compute
from s9.training.distillation import Teacher
from s9.training.evaluation import predict, score
from s9.training.learner import Learner, averaged
from s9.training.loop import EpochRecord, StepDone, Watch, fit
from s9.training.optim import build_optimizer, build_scheduler, schedule
from s9.training.step import NonFiniteLossError
from tests.conftest import composed

CPU = Compute(torch.device("cpu"), torch.float32)
KEYS = {
    "epoch",
    "step",
    "lr",
    "train/loss",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "val/balanced_accuracy",
    "time/step_s",
    "time/train_s",
    "time/epoch_s",
}
BLOCKS: Any = {"C1": {"conv1": {"channels": 8, "stride": 4}, "conv2": {"channels": 16, "stride": 2}}}


@dataclass
class Seen(Watch):
    """What `fit` showed its watch, step by step."""

    steps: list[tuple[int, int, int, int]] = field(default_factory=list)  # epoch, batch, batches, images

    def step(self, done: StepDone) -> None:
        self.steps.append((done.epoch, done.batch, done.batches, done.images))


@dataclass
class Run:
    """All that `fit` takes, made as s9.train makes it, for a small network on the digits."""

    config: Config
    data: ImageSet
    model: S9Net
    ema: AveragedModel | None
    optimizer: torch.optim.Optimizer
    loader: TrainLoader

    def fit(
        self, watch: Watch | None = None, precision: torch.dtype = torch.float32, teacher: Teacher | None = None
    ) -> Iterator[EpochRecord]:
        total = len(self.loader) * self.config.trainer.epochs
        scheduler = build_scheduler(self.config.scheduler, self.optimizer, total)
        learner = Learner(
            model=self.model, optimizer=self.optimizer, scheduler=scheduler, ema=self.ema, teacher=teacher
        )
        reached = fit(
            learner=learner,
            batches=self.loader,
            data=self.data,
            compute=Compute(CPU.device, precision),
            settings=self.config,
            watch=watch,
        )
        return (at.record | at.times for at in reached if at.record)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}


@functools.cache
def digits_set(val_size: int, seed: int) -> ImageSet:
    return load_images(DigitsConfig("digits", val_size, "resident", workers=0), seed)


def prepare(*overrides: str) -> Run:
    """A run of two epochs of five batches of 32 with rows of its own; overrides come last and win."""
    quick = ["data=digits", "model=strided", "aug=none", "wandb=disabled", "optimizer.lr=0.1", "model.whiten=false"]
    sizes = ["trainer.epochs=2", "trainer.steps_per_epoch=5", "trainer.batch_size=32"]
    config = composed(*quick, *sizes, *overrides)
    config.model = dataclasses.replace(config.model, blocks=copy.deepcopy(BLOCKS), head=True)
    seed_everything(config.seed)
    data = digits_set(config.data.val_size, config.seed)
    augment = build_augment(config.aug, data.facts, config.seed)
    loader = train_loader(config, data.train, augment, CPU.device)
    model = S9Net(config.model, data.facts)
    optimizer = build_optimizer(config.optimizer, model)
    ema = averaged(model, config.trainer.ema_decay)
    return Run(config, data, model, ema, optimizer, loader)


def trained(*overrides: str) -> Run:
    run = prepare(*overrides)
    list(run.fit())
    return run


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_there_is_one_record_an_epoch() -> None:
    assert [record["epoch"] for record in prepare("trainer.epochs=3").fit()] == [1, 2, 3]


def test_a_record_has_the_documented_keys() -> None:
    assert [set(record) for record in prepare().fit()] == [KEYS, KEYS]


def test_without_val_images_a_record_has_no_val_keys() -> None:
    keys = set(next(prepare("data.val_size=0").fit()))
    assert keys == KEYS - {"val/loss", "val/accuracy", "val/balanced_accuracy"}


def test_the_steps_of_a_record_count_on_over_the_epochs() -> None:
    assert [record["step"] for record in prepare().fit()] == [5, 10]


def test_an_epoch_without_a_cap_sees_all_whole_batches() -> None:
    run = prepare("trainer.steps_per_epoch=null", "trainer.batch_size=100", "trainer.epochs=1")
    assert next(run.fit())["step"] == len(run.data.train) // 100


def test_the_lr_of_a_record_is_that_of_the_epochs_last_step() -> None:
    run = prepare()
    factor = schedule(run.config.scheduler)
    assert [record["lr"] for record in run.fit()] == pytest.approx([0.1 * factor(0.4), 0.1 * factor(0.9)])


def test_accuracies_are_fractions() -> None:
    record = next(prepare().fit())
    assert 0 < record["train/accuracy"] < 1
    assert 0 < record["val/accuracy"] < 1


def test_the_times_of_a_record_are_in_order() -> None:
    record = next(prepare().fit())
    assert 0 < record["time/step_s"] < record["time/train_s"] < record["time/epoch_s"]


def test_nothing_is_trained_before_the_first_record_is_asked_for() -> None:
    run = prepare()
    before = run.weights()
    run.fit()
    assert equal(run.weights(), before)


def test_a_caller_that_stops_leaves_the_other_epochs_untrained() -> None:
    run, seen = prepare("trainer.epochs=5"), Seen()
    next(run.fit(seen))
    assert {epoch for epoch, *_ in seen.steps} == {1}


def test_the_watch_is_shown_every_step() -> None:
    run, seen = prepare(), Seen()
    list(run.fit(seen))
    assert seen.steps == [(epoch, batch, 5, 32 * batch) for epoch in (1, 2) for batch in range(1, 6)]


def test_training_lowers_the_loss() -> None:
    # Measured: from 2.2 in the first epoch to 1.0 in the fourth.
    losses = [r["train/loss"] for r in prepare("trainer.steps_per_epoch=40", "trainer.epochs=4").fit()]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("aug", ["full", "strong"])
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_the_same_seed_gives_the_same_weights_to_the_last_bit(optimizer: str, aug: str) -> None:
    settings = [f"optimizer={optimizer}", f"aug={aug}", "model.dropout=0.1", "trainer.ema_decay=0.9"]
    assert equal(trained(*settings).weights(), trained(*settings).weights())


def test_the_same_seed_gives_the_same_records() -> None:
    first, second = ([{k: v for k, v in r.items() if "time" not in k} for r in prepare().fit()] for _ in range(2))
    assert first == second


def test_another_seed_gives_other_weights() -> None:
    assert not equal(trained("seed=0").weights(), trained("seed=1").weights())


def test_a_learning_rate_beyond_all_measure_stops_the_run_and_is_named() -> None:
    # The first step has one twentieth of it, which is enough; the loss is looked at after the fifth.
    with pytest.raises(NonFiniteLossError, match=r"^loss is nan in epoch 1, step 2, near lr 8e\+29; "):
        list(prepare("optimizer=sgd", "optimizer.lr=1e30").fit())


@dataclass
class Poison(Seen):
    """Makes a weight NaN after the given step, so that the loss of the next step is the first bad one."""

    model: nn.Module = field(default_factory=nn.Module)
    after: int = 0

    def step(self, done: StepDone) -> None:
        super().step(done)
        if len(self.steps) == self.after:
            with torch.no_grad():
                next(self.model.parameters()).fill_(torch.nan)


# Epochs have 25 steps; the losses are looked at after steps 20 and 25 of each.
@pytest.mark.parametrize(
    ("after", "epoch"),
    [(1, 1), (9, 1), (18, 1), (19, 1), (20, 1), (22, 1), (24, 1), (26, 2), (44, 2), (49, 2)],
)
def test_the_first_step_with_a_bad_loss_is_named(after: int, epoch: int) -> None:
    run = prepare("trainer.steps_per_epoch=25", "trainer.batch_size=16", "data.val_size=0")
    with pytest.raises(NonFiniteLossError, match=rf"^loss is nan in epoch {epoch}, step {after + 1}, near lr "):
        list(run.fit(Poison(model=run.model, after=after)))


def test_a_bad_loss_is_told_in_one_line_with_a_way_on() -> None:
    run = prepare()
    with pytest.raises(NonFiniteLossError, match=r"try a smaller optimizer\.lr or trainer\.clip_norm=1$") as caught:
        list(run.fit(Poison(model=run.model, after=1)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("val_size", [0, 150])
def test_weights_that_the_last_step_of_an_epoch_made_bad_do_not_become_a_record(val_size: int) -> None:
    run = prepare("trainer.epochs=1", "trainer.steps_per_epoch=5", f"data.val_size={val_size}")
    with pytest.raises(NonFiniteLossError, match="weights are not finite in epoch 1, step 5, lr "):
        list(run.fit(Poison(model=run.model, after=5)))


class Norms(torch.optim.SGD):
    """SGD that notes the norm of the gradient that it really uses."""

    norms: list[float]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure: one gradient a step
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(torch.cat([g.ravel() for g in gradients]).norm().item())
        super().step()


def gradient_norms(*overrides: str) -> list[float]:
    run = prepare("data.val_size=0", *overrides)
    optimizer = Norms(run.model.parameters(), lr=0.1)
    optimizer.norms, run.optimizer = [], optimizer
    list(run.fit())
    return optimizer.norms


def test_clip_norm_bounds_the_gradient_that_is_used() -> None:
    assert max(gradient_norms("trainer.clip_norm=0.05")) == pytest.approx(0.05, rel=1e-3)


def test_without_clip_norm_the_gradient_is_larger_than_that_bound() -> None:
    assert min(gradient_norms("trainer.clip_norm=null")) > 0.05


def test_a_clip_norm_that_is_never_reached_changes_nothing() -> None:
    assert gradient_norms("trainer.clip_norm=1e6") == gradient_norms("trainer.clip_norm=null")


@dataclass
class HandMadeAverage(Seen):
    """The exponential moving average of weights and batch statistics, from the weights after each step."""

    model: nn.Module = field(default_factory=nn.Module)
    decay: float = 0.0
    state: dict[str, torch.Tensor] = field(default_factory=dict)

    def step(self, done: StepDone) -> None:
        now = {n: v.detach().clone() for n, v in self.model.state_dict().items() if v.is_floating_point()}
        if not self.state:
            self.state, self.count = now, 0
        self.count += 1
        decay = min(self.decay, self.count / (9 + self.count))
        self.state = {n: decay * self.state[n] + (1 - decay) * now[n] for n in now}


@pytest.mark.parametrize("decay", [0.1, 0.8, 0.999])
def test_averaged_weights_are_the_exponential_moving_average(decay: float) -> None:
    """From its warm-up, in which the decay is smaller, on; 0.1 is reached at once, 0.999 never."""
    run = prepare(f"trainer.ema_decay={decay}")
    by_hand = HandMadeAverage(model=run.model, decay=decay)
    list(run.fit(by_hand))
    assert run.ema is not None
    kept = run.ema.module.state_dict()
    torch.testing.assert_close({n: kept[n] for n in by_hand.state}, by_hand.state)


def test_the_average_of_a_short_run_has_forgotten_its_first_weights() -> None:
    """With a decay of 0.999 throughout, 97 % of the first weights would be in it after 28 steps."""
    averaged_weights = averaged(one := nn.Linear(1, 1, bias=False), 0.999)
    assert averaged_weights is not None
    for step in range(29):
        nn.init.constant_(one.weight, 1.0 if step == 0 else 0.0)
        averaged_weights.update_parameters(one)
    (weight,) = averaged_weights.module.parameters()
    assert float(weight.detach()) < 0.001


def test_the_average_counts_batches_as_the_model_does() -> None:
    run = trained("trainer.ema_decay=0.999")
    assert run.ema is not None
    counts = [v for n, v in run.ema.module.state_dict().items() if n.endswith("num_batches_tracked")]
    assert counts and counts == [v for n, v in run.weights().items() if n.endswith("num_batches_tracked")]


def test_the_averaged_weights_are_others_than_the_trained_ones() -> None:
    run = trained("trainer.ema_decay=0.8")
    assert run.ema is not None
    assert not equal(run.ema.module.state_dict(), run.weights())


def test_a_decay_of_zero_keeps_no_averaged_weights() -> None:
    assert prepare("trainer.ema_decay=0").ema is None


def test_averaging_does_not_change_the_trained_weights() -> None:
    assert equal(trained("trainer.ema_decay=0.8").weights(), trained("trainer.ema_decay=0").weights())


@pytest.mark.parametrize("decay", [0, 0.8])
def test_val_is_scored_with_the_averaged_weights_where_they_are_kept(decay: float) -> None:
    run = prepare(f"trainer.ema_decay={decay}", "trainer.epochs=1")
    (record,) = run.fit()
    probs = predict(run.ema or run.model, run.data.val, run.data.facts, CPU)
    scores = score(probs, run.data.val)
    keys = ("loss", "accuracy", "balanced_accuracy")
    assert [record[f"val/{key}"] for key in keys] == [scores[key] for key in keys]


def first_loss_by_hand(run: Run, smoothing: float) -> float:
    """The loss of the first batch, with the smoothing written out: that part of the target goes to all classes."""
    model = copy.deepcopy(run.model).train()
    run.loader.start_epoch(1)
    raw, labels = next(iter(run.loader))
    with torch.no_grad():
        log_probs = F.log_softmax(model(CPU.normalised(raw, run.data.facts.mean, run.data.facts.std)), dim=1)
    hard = -log_probs[torch.arange(len(labels)), labels].mean()
    return float((1 - smoothing) * hard - smoothing * log_probs.mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_train_loss_is_the_cross_entropy_with_the_smoothed_labels(smoothing: float) -> None:
    run = prepare(f"trainer.label_smoothing={smoothing}", "trainer.steps_per_epoch=1", "trainer.epochs=1")
    by_hand = first_loss_by_hand(run, smoothing)
    assert next(run.fit())["train/loss"] == pytest.approx(by_hand, rel=1e-5)


def test_label_smoothing_changes_the_weights() -> None:
    assert not equal(trained("trainer.label_smoothing=0").weights(), trained("trainer.label_smoothing=0.2").weights())


@pytest.mark.parametrize("ema_decay", [0, 0.8])
def test_every_step_trains_in_train_mode_also_after_val_was_scored(ema_decay: float) -> None:
    run = prepare(f"trainer.ema_decay={ema_decay}")
    modes: list[bool] = []
    run.model.register_forward_pre_hook(lambda module, _: modes.append(module.training and torch.is_grad_enabled()))
    list(run.fit())
    assert modes.count(True) == 10


def test_val_is_scored_in_eval_mode() -> None:
    run = prepare("trainer.epochs=1")
    modes: list[bool] = []
    run.model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    list(run.fit())
    assert modes == [True] * 5 + [False]


def test_bfloat16_convolves_in_bfloat16() -> None:
    run = prepare("trainer.epochs=1", "data.val_size=0")
    dtypes: set[torch.dtype] = set()
    conv = next(m for m in run.model.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda _, __, out: dtypes.add(out.dtype))
    list(run.fit(precision=torch.bfloat16))
    assert dtypes == {torch.bfloat16}


def test_bfloat16_keeps_the_weights_in_float32() -> None:
    run = prepare("trainer.epochs=1")
    list(run.fit(precision=torch.bfloat16))
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}


def test_bfloat16_loses_little() -> None:
    exact = [record["train/loss"] for record in prepare().fit()]
    rounded = [record["train/loss"] for record in prepare().fit(precision=torch.bfloat16)]
    assert rounded == pytest.approx(exact, abs=0.05)
