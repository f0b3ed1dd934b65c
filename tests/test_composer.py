"""The jobs of a sweep are composed together, which is quick: each has the configuration that it would have alone."""

import itertools
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from s9.cli import jobs
from s9.cli.compose import Asked, compose, compose_config, hydra_of
from s9.cli.grid import Combination, grid_of
from s9.cli.jobs import Composer
from s9.cli.plan import plan_of
from s9.config.schema import Config
from s9.config.sweep import SweepConfig
from s9.system.errors import UserError

# What is swept: each combination has to be, whole, what compose_config makes of its arguments.
VALID = {
    "seeds": ["data=digits", "seed=0,1"],
    "numbers": ["optimizer.lr=0.1,1e-1,3", "trainer.label_smoothing=0,0.1"],
    "a whole number for a float": ["trainer.clip_norm=1,2", "trainer.ema_decay=0,0.9"],
    "null and a number": ["trainer.steps_per_epoch=null,5", "trainer.threads=1,null"],
    "flags": ["trainer.compile=true,false", "model.head=true,false"],
    "a group": ["data=digits", "model=strided,dilated", "optimizer=sgd,muon"],
    "a group and keys of it": [
        "model=strided,dilated",
        "model.dropout=0,0.1",
        "aug=full,strong",
        "aug.transforms.flip.p=0.2,0.3",
    ],
    "keys of a layer": ["model.blocks.C1.conv1.channels=8,16", "+model.blocks.C1.conv1.stride=1,2"],
    "a default of a layer": ["model=strided", "+model.blocks.C1.conv2.dilation=2,3"],
    "an added argument": ["optimizer=sgd", "+optimizer.foreach=true,false", "optimizer.lr=0.1,0.2"],
    "an added transform": [
        "aug=basic",
        "+aug.transforms.gray={_target_: albumentations.ToGray, p: 0.1},{_target_: albumentations.ToGray, p: 0.5}",
    ],
    "a transform less": ["aug=full", "~aug.transforms.gray", "aug.transforms.flip.p=0,0.5"],
    "a mapping": ["aug.mix={name: mixup, alpha: 0.2, p: 1},{name: cutmix, alpha: 1, p: 0.5}"],
    "a mapping and then a key of it": [
        "aug.mix={name: mixup, alpha: 0.2, p: 1},{name: cutmix, alpha: 1, p: 1}",
        "aug.mix.p=0.3,0.6",
    ],
    "two keys that only go together": ["aug.backend=device,albumentations", "data.loader=workers", "data.workers=0,2"],
    "lists": ["wandb.tags=[a,b],[]", "aug=full", "aug.transforms.dropout.num_holes_range=[1,1],[1,2]"],
    "an experiment": ["experiment=fast,reference", "trainer.epochs=3,4"],
    "an experiment that the command line wins over": ["experiment=fast", "optimizer.lr=0.01,0.02", "seed=3"],
    "a schedule": ["scheduler=onecycle,cosine", "scheduler.warmup=0.1,0.2"],
    "names": ["name=one,'a name, with [signs]'", "model.name=x,y"],
    "roots": ["data=folder", "data.root=one,../two,'a b'", "data.val_size=4"],
    "paths of a cache": ["data.cache=/tmp/a,'~/b'"],
    "an environment's value": ["data=digits", "name=${oc.env:HOME},plain"],
    "another key's value": ["data=digits", "trainer.batch_size=32,64", "trainer.epochs=${trainer.batch_size}"],
    "another key's value, in the values": ["seed=3,4", "data.val_seed=${seed},7"],
}
# What is swept, with one combination that has to be refused in the words that it would be refused in alone.
WRONG = {
    "a value": ["model.dropout=0,1.5"],
    "a type": ["trainer.epochs=3,many"],
    "null": ["model.dropout=0,null"],
    "a key": ["model.dropot=0,0.1"],
    "an option": ["model=strided,none"],
    "an argument": ["optimizer=sgd", "+optimizer.momentun=0.8,0.9"],
    "a range of an argument": ["aug.transforms.flip.p=0.5,2"],
    "a target": ["optimizer._target_=torch.optim.SGD,os.system"],
    "two that do not go together": ["aug.backend=device,albumentations"],
    "a key that is there already": ["+optimizer.lr=0.1,0.2"],
    "a key that nothing reads": ["+model.new=1,2"],
    "a channel": ["model.blocks.C1.conv1.channels=8,0"],
    "a mode": ["wandb.mode=offline,sometimes"],
    "a seed": ["seed=0,-1"],
    "a share without a teacher": ["distillation.share=0.7,0.5"],
    "a root's type": ["data=digits", "data.root=a,b"],
    "a part": ["trainer=default,slow"],
}


def some(lists: dict[str, list[str]]) -> list[Any]:
    """One of three is enough for who waits: composing takes a third of a second."""
    marks = [() if at % 3 == 0 else pytest.mark.slow for at in range(len(lists))]
    return [pytest.param(lists[name], id=name, marks=mark) for name, mark in zip(lists, marks, strict=True)]


def combinations(arguments: list[str]) -> tuple[list[Combination], Composer]:
    with hydra_of(Asked(arguments)) as (_, options):
        grid = grid_of(arguments, SweepConfig(), options, lambda *_: None)
    return grid.combinations, Composer(Asked([]), options)


def told(compose: Callable[[], object]) -> str | None:
    """The error's line; None if there is no error."""
    try:
        compose()
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("arguments", some(VALID))
def test_every_job_has_the_configuration_that_it_would_have_alone(arguments: list[str]) -> None:
    found, composer = combinations(arguments)
    assert len(found) > 1
    for combination in found:
        together, alone = composer.config_of(combination), compose_config(combination.arguments)
        assert together == alone, combination.arguments
        assert repr(asdict(together)) == repr(asdict(alone))  # types, and the order of mappings


@pytest.mark.parametrize("arguments", some(WRONG))
def test_a_job_is_refused_in_the_words_that_it_would_be_refused_in_alone(arguments: list[str]) -> None:
    found, composer = combinations(arguments)
    words = [told(lambda c=combination: compose_config(c.arguments)) for combination in found]  # type: ignore[misc]
    said = [told(lambda c=combination: composer.config_of(c)) for combination in found]  # type: ignore[misc]
    assert any(words) and [bool(line) for line in said] == [bool(line) for line in words]
    for line, alone, combination in zip(said, words, found, strict=True):
        if line and alone:
            named = " ".join(f"{key}={value}" for key, value in combination.swept.items())
            own = alone.startswith(tuple(f"{key}=" for key in combination.swept))
            assert line == (alone if own else f"job {named}: {alone}; sweep.exclude= leaves out jobs")


def test_jobs_that_differ_by_values_alone_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def noted(asked: Asked) -> Any:
        calls.append(list(asked.overrides))
        return compose(asked)

    monkeypatch.setattr(jobs, "compose", noted)
    found, composer = combinations(["data=digits", "optimizer=sgd,muon", "optimizer.lr=range(1,6)", "seed=range(0,9)"])
    assert len({repr(composer.config_of(combination)) for combination in found}) == 90
    assert calls == [["data=digits", "optimizer=sgd"], ["data=digits", "optimizer=muon"]]


def test_a_job_changes_nothing_of_another() -> None:
    found, composer = combinations(["aug=full", "aug.transforms.flip.p=0.1,0.2", "model.blocks.C1.conv1.channels=8,16"])
    first = composer.config_of(found[0])
    before = repr(first)
    for combination in found:
        composer.config_of(combination)
    assert repr(first) == before == repr(composer.config_of(found[0]))


def test_what_belongs_to_the_sweep_is_no_part_of_a_job() -> None:
    plan = plan_of(Asked(["data=digits", "seed=0,1", "sweep.name=mine", "sweep.max_failures=1"]))
    assert [job.config for job in plan.jobs] == [compose_config(["data=digits", f"seed={seed}"]) for seed in (0, 1)]


# --- the digests that jobs are named by


def digests(*arguments: str) -> list[str]:
    return [job.digest for job in plan_of(Asked(arguments)).jobs]


SMALL = ("data=digits", "optimizer=sgd")
SAME = {
    "another order of the arguments": (["seed=1", "optimizer.lr=0.1"], ["optimizer.lr=0.1", "seed=1"]),
    "another spelling": (["optimizer.lr=0.1"], ["optimizer.lr=1e-1"]),
    "a default, said": ([], ["seed=0"]),
    "a key that changes no result": (["name=one"], ["name=two", "wandb=offline", "data.workers=0"]),
    "which of several GPUs": (["trainer.device=cuda:0"], ["trainer.device=cuda:1"]),
    "what belongs to the sweep": (["sweep.max_failures=1"], ["sweep.name=mine", "hydra.sweep.dir=here"]),
}
OTHER = ["seed=1", "optimizer.lr=0.7", "model=dilated", "trainer.device=cuda", "trainer.precision=bfloat16"]
OTHER += ["data.val_seed=2", "trainer.threads=1", "aug=full", "~aug.transforms.flip", "+optimizer.foreach=true"]


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_one_job_has_one_name_however_it_is_asked_for(one: list[str], other: list[str]) -> None:
    assert digests(*SMALL, *one) == digests(*SMALL, *other)


@pytest.mark.parametrize("argument", OTHER)
def test_a_job_with_another_result_has_another_name(argument: str) -> None:
    assert digests(*SMALL) != digests(*SMALL, argument)


def test_the_jobs_of_a_sweep_have_the_same_names_in_any_order_and_in_any_sweep() -> None:
    values = ["optimizer.lr=0.1,0.2", "seed=0,1"]
    whole = [set(digests(*SMALL, *order)) for order in itertools.permutations(values)]
    assert whole[0] == whole[1] and len(whole[0]) == 4
    assert set(digests(*SMALL, "optimizer.lr=0.2", "seed=1")) < whole[0]


def test_values_that_compute_the_same_are_one_job_and_a_line_says_so() -> None:
    plan = plan_of(Asked([*SMALL, "seed=0,1", "wandb.tags=[a],[b]"]))
    assert [job.values["seed"] for job in plan.jobs] == ["0", "1"]
    assert "wandb.tags does not change what is computed: 2 jobs are left out as repeats" in plan.said


def images_in(folder: Path, offset: int) -> None:
    import numpy as np
    from PIL import Image

    for split, label in itertools.product(("train", "test"), ("a", "b")):
        (folder / split / label).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((32, 32, 3), offset + 10 * number + ord(label), np.uint8)
            Image.fromarray(pixels).save(folder / split / label / f"{number}.png")


def test_images_count_by_what_they_are_and_not_by_where_they_lie(tmp_path: Path) -> None:
    for name, offset in (("one", 0), ("other", 40)):
        images_in(tmp_path / name, offset)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    folders = ",".join(str(tmp_path / name) for name in ("one", "other", "link"))
    plan = plan_of(Asked(["data=folder", "data.duplicates=keep", "data.val_size=2", f"data.root={folders}"]))
    assert [Path(job.values["data.root"]).name for job in plan.jobs] == ["one", "other"]


def test_a_config_without_its_sweep_is_what_is_named() -> None:
    config: Config = compose_config(["data=digits", "sweep.max_failures=7"])
    assert replace(config, sweep=SweepConfig()) == compose_config(["data=digits"])
