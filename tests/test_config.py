"""Composition: every option is valid, and every wrong input is answered with one plain line."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from s9.cli.compose import Asked, compose, compose_config
from s9.cli.grid import one_by_one
from s9.cli.help import CONF, groups
from s9.cli.plan import plan_of
from s9.config.schema import Config
from s9.system.errors import UserError

# What is typed -> words that its one line must hold: the key, and what is allowed or meant.
WRONG = {
    "model=dilatd": ["model=dilatd", "did you mean dilated"],
    "aug=basics": ["aug=basics", "did you mean basic"],
    "experiment=s10": ["experiment=s10", "lr_range, reference, teacher"],
    "optimizer=null": ["optimizer=null", "adamw, muon, sgd"],
    "+model=strided": ["already part", "model=strided"],
    "~model": ["~model", "every run needs"],
    "modle=dilated": ["modle=dilated", "did you mean model"],
    "model.dropot=0.1": ["model.dropot", "did you mean model.dropout"],
    "dropout=0.1": ["dropout=0.1", "did you mean model.dropout"],
    "lr=0.1": ["lr=0.1", "did you mean optimizer.lr"],
    "+new.key=1": ["+new.key=1", "nothing reads"],
    "+model.new=1": ["+model.new=1", "nothing reads"],
    "model.dropout=1": ["model.dropout=1", "[0, 1)"],
    "model.dropout=-0.1": ["model.dropout=-0.1", "[0, 1)"],
    "model.dropout=nan": ["model.dropout=nan", "[0, 1)"],
    "model.dropout=much": ["model.dropout=much", "a number"],
    "model.dropout=null": ["model.dropout=null", "not null"],
    "model.head=maybe": ["model.head=maybe", "true or false"],
    "model.activation=tanh": ["model.activation=tanh", "relu, gelu or silu"],
    "model.blocks.C1.conv1.channels=0": ["model.blocks.C1.conv1.channels=0", "1 or more"],
    "model.blocks.C1.conv1.chanels=8": ["model.blocks.C1.conv1.chanels", "did you mean", "channels"],
    "+model.blocks.C1.conv1.stride=x": ["model.blocks.C1.conv1.stride=x", "Integer"],
    "optimizer.lr=0": ["optimizer.lr=0", "more than 0"],
    "optimizer.lr=-1": ["optimizer.lr=-1", "more than 0"],
    "optimizer.lr=nan": ["optimizer.lr=nan", "finite"],
    "optimizer.lr=fast": ["optimizer.lr=fast", "a number"],
    "optimizer.weight_decay=-1": ["optimizer.weight_decay=-1", "0 or more"],
    "+optimizer.momentun=0.9": ["momentun", "did you mean momentum"],
    "optimizer._target_=os.system": ["optimizer._target_=os.system", "torch.optim."],
    "optimizer._target_=torch.optim.Nope": ["torch.optim.Nope", "has no Nope"],
    "scheduler._target_=subprocess.run": ["scheduler._target_=subprocess.run", "s9.training."],
    "scheduler.warmup=2": ["scheduler.warmup=2", "from 0 to 1"],
    "~scheduler.warmup": ["scheduler.warmup is missing", "one_cycle needs it"],
    "~model.dropout": ["~model.dropout", "cannot be removed"],
    "trainer.epochs=0": ["trainer.epochs=0", "1 or more"],
    "trainer.epochs=1.5": ["trainer.epochs=1.5", "a whole number"],
    "trainer.batch_size=0": ["trainer.batch_size=0", "1 or more"],
    "trainer.batch_size=-8": ["trainer.batch_size=-8", "1 or more"],
    "trainer.device=tpu": ["trainer.device=tpu", "auto, cpu, cuda"],
    "trainer.precision=fp8": ["trainer.precision=fp8", "float32"],
    "trainer.label_smoothing=1": ["trainer.label_smoothing=1", "[0, 1)"],
    "trainer.ema_decay=1": ["trainer.ema_decay=1", "[0, 1)"],
    "trainer.clip_norm=0": ["trainer.clip_norm=0", "more than 0"],
    "data.val_size=-1": ["data.val_size=-1", "a number of images"],
    "data.kind=other": ["data.kind=other", "an option of conf/data chooses it"],
    "wandb.mode=sometimes": ["wandb.mode=sometimes", "auto"],
    "wandb.timeout=3600": ["wandb.timeout=3600", "at most 20"],
    "wandb.tags=mine": ["wandb.tags=mine", "a list"],
    "seed=-1": ["seed=-1", "from 0"],
    "aug.transforms.flip.p=2": ["aug.transforms.flip.p=2", "from 0 to 1"],
    "aug=full +aug.transforms.dropout.max_holes=1": [
        "aug.transforms.dropout.max_holes=1",
        "CoarseDropout does not take this argument",
    ],
    "aug=full aug.transforms.dropout.num_holes_range=[5,1]": ["aug.transforms.dropout", "num_holes_range=[5, 1]"],
    "aug=full aug.transforms.dropout.hole_width_range=[9,3]": ["aug.transforms.dropout", "hole_width_range=[9, 3]"],
    "aug=full aug.transforms.dropout.fill_mask=0": ["aug.transforms.dropout", "fill_mask=0", "null"],
    "aug=full aug.transforms.shift_scale_rotate.scale=[0,1]": ["aug.transforms.shift_scale_rotate", "scale=[0, 1]"],
    "+aug.transforms.mine._target_=os.system": ["aug.transforms.mine._target_=os.system", "albumentations."],
    "+aug.transforms.mine._target_=albumentations.Blurr": ["has no Blurr", "did you mean"],
    "aug.backend=gpu": ["aug.backend=gpu", "device or albumentations"],
    "aug.backend=albumentations": ["aug.backend=albumentations", "data.loader=workers"],
    "aug=strong aug.mix.name=mix": ["aug.mix.name=mix", "cutmix or mixup"],
    "aug=strong aug.mix.alpha=0": ["aug.mix.alpha=0", "more than 0"],
    "aug=strong aug.mix.p=2": ["aug.mix.p=2", "from 0 to 1"],
    "data.loader=disk": ["data.loader=disk", "resident or workers"],
    "data.workers=2": ["data.workers=2", "data.loader=workers"],
    "data.loader=workers data.workers=-1": ["data.workers=-1", "from 0 to 256"],
    "aug=full ~aug.transforms.crop": ["~aug.transforms.crop", "aug.transforms.flip"],
    "hydra/launcher=nope": ["hydra/launcher=nope", "allowed: basic, joblib, ray, submitit_local, submitit_slurm"],
    "hydra/job_logging=nowhere": ["hydra/job_logging=nowhere", "disabled", "none", "stdout"],
    "hydra/nope=x": ["hydra/nope=x", "no such group", "hydra/launcher"],
    "hydra.searchpath=3 model=dilated": ["hydra.searchpath", "a list"],
    "model.dropout": ["model.dropout", "key=value"],
    "model.dropout==": ["model.dropout==", "key=value"],
}


OPTIONS = [
    pytest.param(p, id=f"{p.parent.name}/{p.stem}") for name in groups() for p in sorted(CONF.glob(f"{name}/*.yaml"))
]

# One of three is enough for who waits: composing takes a third of a second.
SOME = [typed if i % 3 == 0 else pytest.param(typed, marks=pytest.mark.slow) for i, typed in enumerate(WRONG)]


@pytest.mark.parametrize("typed", SOME)
def test_a_wrong_input_is_answered_with_one_line_that_names_it(typed: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_config(typed.split())
    line = str(caught.value)
    assert "\n" not in line
    assert [word for word in WRONG[typed] if word not in line] == []


def test_a_mistake_in_the_last_value_of_a_sweep_is_found_before_it_starts() -> None:
    with pytest.raises(UserError, match=r"model\.dropout=1\.5: must be in"):
        plan_of(Asked(["optimizer.lr=0.1,0.3", "model.dropout=0,0.1,1.5"]))


def test_a_mistake_in_the_last_option_of_a_sweep_is_found_before_it_starts() -> None:
    with pytest.raises(UserError, match="model=none: there is no such option"):
        plan_of(Asked(["model=strided,none"]))


@pytest.mark.parametrize("option", [f"{group}={name}" for group, names in groups().items() for name in names])
def test_every_option_composes(option: str) -> None:
    assert isinstance(compose_config([option]), Config)


@pytest.mark.parametrize("path", OPTIONS)
def test_every_option_file_opens_with_purpose_command_and_expectation(path: object) -> None:
    text = path.read_text().removeprefix("# @package _global_\n")  # type: ignore[attr-defined]
    first, command, expectation = text.splitlines()[:3]
    assert first.startswith("# ") and first.endswith(".")
    assert command.startswith("#   python -m s9.train")
    assert "# Expect: " in expectation + text


@pytest.mark.parametrize("path", OPTIONS)
def test_the_command_in_an_option_file_is_valid(path: object) -> None:
    lines = path.read_text().splitlines()  # type: ignore[attr-defined]
    command = next(line for line in lines if line.startswith("#   python -m s9.train"))
    words = [w.strip("'") for w in command.split("s9.train", 1)[1].split()]
    values = [one_by_one(word, lambda group: groups().get(group, [])) for word in words if word != "-m"]
    for overrides in itertools.product(*values):
        compose_config(overrides)


def test_an_experiment_wins_over_the_defaults() -> None:
    assert compose_config(["experiment=reference"]).trainer.epochs == 300


def test_the_command_line_wins_over_an_experiment() -> None:
    assert compose_config(["experiment=reference", "trainer.epochs=2"]).trainer.epochs == 2


def test_an_experiment_leaves_the_model_to_choose() -> None:
    assert compose_config(["experiment=fast", "model=dilated"]).model.name == "dilated"


def test_own_options_are_found_by_a_search_path(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shutil.copy(CONF / "model" / "dilated.yaml", tmp_path / "model" / "mine.yaml")
    assert compose_config([f"hydra.searchpath=[file://{tmp_path}]", "model=mine"]).model.name == "mine"


def test_a_config_name_that_is_missing_is_named_with_the_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--config-name mine: there is no mine.yaml in {tmp_path} or {CONF}"):
        compose(Asked(["seed=1"], str(tmp_path), "mine"))


def test_a_transform_can_be_removed() -> None:
    assert "gray" not in compose_config(["aug=full", "~aug.transforms.gray"]).aug.transforms


def test_a_transform_can_be_added() -> None:
    added = compose_config(["aug=basic", "+aug.transforms.gray={_target_: albumentations.ToGray, p: 0.1}"])
    assert list(added.aug.transforms)[-1] == "gray"


def test_a_transform_that_only_albumentations_has_can_be_added_with_its_backend() -> None:
    blur = "+aug.transforms.blur={_target_: albumentations.Blur, p: 0.1}"
    added = compose_config(["aug=basic", "aug.backend=albumentations", "data.loader=workers", blur])
    assert list(added.aug.transforms)[-1] == "blur"


def test_a_default_of_a_row_can_be_set() -> None:
    changed = compose_config(["model=strided", "+model.blocks.C1.conv2.dilation=2"])
    assert changed.model.blocks["C1"]["conv2"].dilation == 2


def test_the_default_run_is_strided_with_basic_augmentation_on_cifar10(digits: Callable[..., Config]) -> None:
    default = compose_config([])
    assert (default.model.name, default.aug.name, default.data.name) == ("strided", "basic", "cifar10")
