"""The check door: each rule of the assignment holds where it should, and is broken by what was made to break it."""

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s9.assignment.augmentation import augmentation_rules
from s9.assignment.network import model_rules
from s9.assignment.rule import Rule
from s9.check import main
from s9.cli.compose import compose_config
from s9.config.model import ModelConfig
from s9.config.schema import AugConfig
from s9.data.sources.cifar10 import FACTS
from s9.models.analysis import model_facts
from s9.system.errors import UserError
from tests.conftest import ROOT, composed

MODEL_RULES = [
    "blocks",
    "three_convolutions",
    "block_end",
    "receptive_field",
    "separable",
    "dilated",
    "global_average",
    "border",
    "parameters",
]
AUGMENTATION_RULES = ["flip", "shift_scale_rotate", "one_hole", "hole_size", "hole_fill", "mask_fill"]
RULES = MODEL_RULES + AUGMENTATION_RULES
WEAK_POINTS_OF_REFERENCE = ["three_convolutions", "block_end", "separable", "border"]

REFERENCE = ["model=reference", "aug=full", "rules=assignment"]

Blocks = dict[str, dict[str, dict[str, Any]]]

# Holds every rule: receptive fields 3 5 7 (jump 2) 11 15 19 (4) 27 35 43, then dilation 4 in C4.
GOOD: Blocks = {
    "C1": {"conv1": {"channels": 8}, "conv2": {"channels": 8}, "conv3": {"channels": 8, "stride": 2}},
    "C2": {"conv1": {"channels": 8}, "conv2": {"channels": 8}, "conv3": {"channels": 8, "stride": 2}},
    "C3": {
        "conv1": {"channels": 8, "separable": True},
        "conv2": {"channels": 8},
        "conv3": {"channels": 8, "dilation": 4},
    },
    "C4": {"conv1": {"channels": 8}, "conv2": {"channels": 8}, "conv3": {"channels": 8, "dilation": 4}},
}


def good_with(**changes: dict[str, Any]) -> Blocks:
    """The good rows with some keys of some rows set: C1_conv3={"stride": 1}."""
    blocks = copy.deepcopy(GOOD)
    for name, values in changes.items():
        block, row = name.split("_")
        blocks[block][row] |= values
    return blocks


def good_without(*names: str) -> Blocks:
    blocks = copy.deepcopy(GOOD)
    for name in names:
        block, row = name.split("_")
        del blocks[block][row]
    return blocks


def renamed(old: str, new: str) -> Blocks:
    return {new if block == old else block: rows for block, rows in copy.deepcopy(GOOD).items()}


def hand_made(blocks: Blocks) -> ModelConfig:
    given: Any = copy.deepcopy(blocks)
    return ModelConfig("hand-made", 0.0, "relu", whiten=False, head=True, blocks=given)


def broken(rules: list[Rule]) -> list[str]:
    return [rule.name for rule in rules if not rule.holds]


def the_rule(rules: list[Rule], name: str) -> Rule:
    return next(rule for rule in rules if rule.name == name)


def rules_of(blocks: Blocks, num_classes: int = 10) -> list[Rule]:
    config = hand_made(blocks)
    return model_rules(config, model_facts(config, replace(FACTS, class_names=FACTS.class_names[:num_classes])))


def broken_in(blocks: Blocks) -> list[str]:
    return broken(rules_of(blocks))


def verdicts(printed: str) -> dict[str, str]:
    """{rule: pass, known or FAIL} of what check printed."""
    lines = [line.split() for line in printed.splitlines() if line.startswith(("pass ", "known ", "FAIL "))]
    return {words[1]: words[0] for words in lines}


def checked(capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, dict[str, str]]:
    """Exit code and verdicts of `python -m s9.check model=reference aug=full rules=assignment <overrides>`."""
    code = main([*REFERENCE, *overrides])
    return code, verdicts(capsys.readouterr().out)


@pytest.mark.parametrize("model", ["reference", "strided", "dilated"])
def test_every_model_passes_with_the_full_augmentation(model: str) -> None:
    assert main([f"model={model}", "aug=full", "rules=assignment"]) == 0


@pytest.mark.parametrize("model", ["reference", "strided", "dilated"])
def test_every_rule_is_printed(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([f"model={model}", "aug=full", "rules=assignment"])
    assert list(verdicts(capsys.readouterr().out)) == RULES


@pytest.mark.parametrize("model", ["strided", "dilated"])
def test_our_models_have_no_known_weak_points(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([f"model={model}", "aug=full", "rules=assignment"])
    assert set(verdicts(capsys.readouterr().out).values()) == {"pass"}


def test_the_weak_points_of_the_reference_are_known_and_all_else_holds(capsys: pytest.CaptureFixture[str]) -> None:
    _, words = checked(capsys)
    assert [rule for rule, word in words.items() if word != "pass"] == WEAK_POINTS_OF_REFERENCE


def test_the_layer_table_is_printed_with_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    main(REFERENCE)
    assert "total: 162,296 parameters" in capsys.readouterr().out


def test_the_last_line_counts_the_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    main(REFERENCE)
    assert capsys.readouterr().out.splitlines()[-1] == "15 rules: 11 hold, 4 known weak points, 0 broken"


def test_unless_they_are_asked_for_one_line_says_how_many_rules_hold(capsys: pytest.CaptureFixture[str]) -> None:
    main(["model=reference", "aug=full"])
    said = "the assignment's 15 rules: 11 hold, 4 known weak points, 0 broken (rules=assignment lists them)"
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_a_broken_rule_is_no_failure_unless_the_rules_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=reference", "aug=none"]) == 0
    assert "5 broken" in capsys.readouterr().out


@pytest.mark.parametrize("asked", [["rules=all"], ["rules="], ["rules=assignment", "rules=assignment"]])
def test_other_rules_than_those_of_the_assignment_are_refused(asked: list[str]) -> None:
    with pytest.raises(UserError, match=r"^rules=.*: must be assignment, once$"):
        main(asked)


def test_help_names_the_exit_codes() -> None:
    done = subprocess.run([sys.executable, "-m", "s9.check", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Exit code 0" in done.stdout


def test_other_data_sets_are_measured_with_their_own_mean(capsys: pytest.CaptureFixture[str]) -> None:
    code, words = checked(capsys, "data=digits")
    assert (code, words["hole_fill"]) == (0, "pass")


def test_the_good_rows_break_no_rule() -> None:
    assert broken_in(GOOD) == []


BREAKS_ONE: dict[str, tuple[Blocks, str]] = {
    "a block of another name": (renamed("C4", "D4"), "blocks"),
    "blocks in another order": ({block: GOOD[block] for block in ("C2", "C1", "C3", "C4")}, "blocks"),
    "a block missing": ({b: rows for b, rows in GOOD.items() if b != "C2"}, "blocks"),
    "a block of two": (good_without("C1_conv2"), "three_convolutions"),
    "a block of four": (
        {**GOOD, "C1": {"conv0": {"channels": 8}, **GOOD["C1"]}},
        "three_convolutions",
    ),
    "a block end neither strided nor dilated": (good_with(C3_conv3={"dilation": 1}), "block_end"),
    "a block end with a dilated 1 x 1": (good_with(C3_conv3={"kernel_size": 1}), "block_end"),
    "a block end with stride 3": (good_with(C2_conv3={"stride": 3}), "block_end"),
    "no separable layer": (good_with(C3_conv1={"separable": False}), "separable"),
    "a 1 x 1 depthwise scaling in place of a separable layer": (
        good_with(C3_conv1={"separable": False, "kernel_size": 1, "groups": 8}),
        "separable",
    ),
    "a 1 x 1 layer that says separable": (good_with(C3_conv1={"kernel_size": 1}), "separable"),
    "no dilated layer": (
        good_with(C3_conv3={"dilation": 1, "stride": 2}, C4_conv3={"dilation": 1, "stride": 2}),
        "dilated",
    ),
    "a 1 x 1 layer as the only dilated one": (
        good_with(
            C3_conv3={"dilation": 1, "stride": 2},
            C4_conv2={"dilation": 2, "kernel_size": 1},
            C4_conv3={"dilation": 1, "stride": 2},
        ),
        "dilated",
    ),
    "a 1 x 1 layer padded with zeros": (good_with(C2_conv2={"kernel_size": 1, "padding": 1}), "border"),
    "too many parameters": (good_with(C4_conv1={"channels": 1500}), "parameters"),
}


@pytest.mark.parametrize(("blocks", "rule"), BREAKS_ONE.values(), ids=BREAKS_ONE)
def test_rows_made_to_break_a_rule_break_that_one_alone(blocks: Blocks, rule: str) -> None:
    assert broken_in(blocks) == [rule]


def one_kernel(size: int) -> Blocks:
    return {"C1": {"conv1": {"channels": 8, "kernel_size": size}}}


@pytest.mark.parametrize(("pixels", "holds"), [(43, False), (44, False), (45, True), (46, True)])
def test_the_receptive_field_must_be_more_than_44_pixels(pixels: int, holds: bool) -> None:
    rule = the_rule(rules_of(one_kernel(pixels)), "receptive_field")
    assert (rule.measured, rule.holds) == (str(pixels), holds)


def test_the_receptive_field_that_counts_is_the_one_before_the_average() -> None:
    blocks: Blocks = {"C1": {"conv1": {"channels": 8}}}  # its average sees all 32 pixels and more
    assert the_rule(rules_of(blocks), "receptive_field").measured == "3"


@pytest.mark.parametrize(("channels", "parameters", "holds"), [(15_383, 199_987, True), (15_384, 200_000, False)])
def test_there_must_be_fewer_than_200_000_parameters(channels: int, parameters: int, holds: bool) -> None:
    # A channel of a 1 x 1 layer has 3 weights, 2 numbers of its norm and 8 of the head, which has 8 biases.
    wide: Blocks = {"C1": {"conv1": {"channels": channels, "kernel_size": 1}}}
    rule = the_rule(rules_of(wide, num_classes=8), "parameters")
    assert (rule.measured, rule.holds) == (f"{parameters:,}", holds)


# What one override makes of model=reference aug=full, all of whose own weak points are known.
BREAKS_REFERENCE: dict[str, tuple[list[str], str]] = {
    "three blocks": (
        ["~model.blocks.C4", "model.head=true", "+model.blocks.C1.conv1.kernel_size=15"],
        "blocks",
    ),
    "receptive field of 44": (
        [
            "+model.blocks.C1.conv1.kernel_size=4",  # 1 more than 3
            "+model.blocks.C4.conv1.kernel_size=1",
            "+model.blocks.C4.conv2.kernel_size=2",
        ],
        "receptive_field",
    ),
    "no dilated layer": (["model.blocks.C1.conv4.dilation=1", "model.blocks.C2.conv3.dilation=1"], "dilated"),
    "too many parameters": (["model.blocks.C4.conv1.channels=128"], "parameters"),
    "a block of four is no longer known": (["~model.known_weak_points.three_convolutions"], "three_convolutions"),
    "a last block without an end is no longer known": (["~model.known_weak_points.block_end"], "block_end"),
    "a 1 x 1 depthwise scaling is no longer known": (["~model.known_weak_points.separable"], "separable"),
    "a padded 1 x 1 is no longer known": (["~model.known_weak_points.border"], "border"),
}


@pytest.mark.parametrize(("overrides", "rule"), BREAKS_REFERENCE.values(), ids=BREAKS_REFERENCE)
def test_overrides_that_break_a_rule_of_the_network_fail_it_with_exit_code_1(
    overrides: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = checked(capsys, *overrides)
    assert (code, [name for name, word in words.items() if word == "FAIL"]) == (1, [rule])


MENDS_REFERENCE: dict[str, tuple[list[str], str]] = {
    "a separable layer": (["+model.blocks.C3.conv2.separable=true"], "separable"),
    "an end for the last block": (["+model.blocks.C4.conv2.dilation=2"], "block_end"),
    "no padding": (["model.blocks.C3.conv3.padding=0"], "border"),
}


@pytest.mark.parametrize(("overrides", "rule"), MENDS_REFERENCE.values(), ids=MENDS_REFERENCE)
def test_a_known_weak_point_that_is_mended_passes(
    overrides: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = checked(capsys, *overrides)
    assert (code, words[rule]) == (0, "pass")


def test_a_known_weak_point_is_printed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    main(REFERENCE)
    assert "known weak point: the last block does not shrink" in capsys.readouterr().out


def test_naming_a_weak_point_turns_its_fail_into_known(capsys: pytest.CaptureFixture[str]) -> None:
    code, words = checked(capsys, "+model.known_weak_points.flip=on purpose", "~aug.transforms.flip")
    assert (code, words["flip"]) == (0, "known")


def test_a_known_weak_point_excuses_no_other_rule(capsys: pytest.CaptureFixture[str]) -> None:
    code, words = checked(capsys, "+model.known_weak_points.flip=on purpose", "~aug.transforms.dropout")
    assert (code, words["one_hole"]) == (1, "FAIL")


def test_a_weak_point_of_an_unknown_rule_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        UserError, match=r"^model\.known_weak_points\.flipp: there is no such rule; did you mean flip\?"
    ):
        main([*REFERENCE, "+model.known_weak_points.flipp=on purpose"])


def full_with(*overrides: str) -> AugConfig:
    return composed("aug=full", *overrides).aug


def broken_by(*overrides: str) -> list[str]:
    return broken(augmentation_rules(full_with(*overrides), FACTS))


@pytest.mark.parametrize("backend", [[], ["aug.backend=albumentations", "data.loader=workers"]], ids=["device", "albu"])
def test_the_full_augmentation_breaks_no_rule(backend: list[str]) -> None:
    assert broken_by(*backend) == []


IMAGES = ["aug.backend=albumentations", "data.loader=workers"]  # what only albumentations can do
GRAY_LAST = ["~aug.transforms.gray", "+aug.transforms.gray={_target_: albumentations.ToGray, p: 0.5}"]
AFFINE = "aug.transforms.shift_scale_rotate"
ONE_MORE = "{_target_: albumentations.CoarseDropout, num_holes_range: [1, 1], fill: mean, p: 0.5}"

BREAKS_AUGMENTATION: dict[str, tuple[list[str], str]] = {
    "no flip": (["~aug.transforms.flip"], "flip"),
    "a flip upside down": ([*IMAGES, "aug.transforms.flip._target_=albumentations.VerticalFlip"], "flip"),
    "no affine": (["~aug.transforms.shift_scale_rotate"], "shift_scale_rotate"),
    "an affine that says nothing of rotation": ([f"~{AFFINE}.rotate"], "shift_scale_rotate"),
    "an affine with rotation 0": ([f"{AFFINE}.rotate=0"], "shift_scale_rotate"),
    "an affine that says nothing of shift": ([f"~{AFFINE}.translate_percent"], "shift_scale_rotate"),
    "an affine that says nothing of scale": ([f"~{AFFINE}.scale"], "shift_scale_rotate"),
    "holes of 8 x 8": (
        ["aug.transforms.dropout.hole_height_range=[8,8]", "aug.transforms.dropout.hole_width_range=[8,8]"],
        "hole_size",
    ),
    "holes of 16 x 8": (["aug.transforms.dropout.hole_width_range=[8,8]"], "hole_size"),
    "filled with 0": (["aug.transforms.dropout.fill=0"], "hole_fill"),
    "filled before the image turns gray": (GRAY_LAST, "hole_fill"),
    "a mask fill": ([*IMAGES, "aug.transforms.dropout.fill_mask=0"], "mask_fill"),
}


@pytest.mark.parametrize(("overrides", "rule"), BREAKS_AUGMENTATION.values(), ids=BREAKS_AUGMENTATION)
def test_overrides_that_break_a_rule_of_the_augmentation_fail_it_with_exit_code_1(
    overrides: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = checked(capsys, *overrides)
    assert (code, [name for name, word in words.items() if word == "FAIL"]) == (1, [rule])


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "rule"), BREAKS_AUGMENTATION.values(), ids=BREAKS_AUGMENTATION)
def test_albumentations_is_measured_as_the_device_is(overrides: list[str], rule: str) -> None:
    assert broken_by(*IMAGES, *overrides) == [rule]


@pytest.mark.parametrize("range_", ["[2,2]", "[1,2]"])
def test_two_holes_are_not_one_though_in_32_pixels_they_always_touch(range_: str) -> None:
    assert "one_hole" in broken_by(f"aug.transforms.dropout.num_holes_range={range_}")


def test_two_small_holes_are_not_one() -> None:
    small = [f"aug.transforms.dropout.hole_{side}_range=[4,4]" for side in ("height", "width")]
    assert "one_hole" in broken_by("aug.transforms.dropout.num_holes_range=[2,2]", *small)


def test_two_coarse_dropouts_are_not_one_hole() -> None:
    assert "one_hole" in broken_by(f"+aug.transforms.again={ONE_MORE}")


def test_no_coarse_dropout_is_no_hole() -> None:
    assert broken_by("~aug.transforms.dropout") == ["one_hole", "hole_size", "hole_fill"]


def test_no_augmentation_breaks_every_rule_but_the_mask_fill() -> None:
    none = compose_config(["aug=none"]).aug
    assert broken(augmentation_rules(none, FACTS)) == [r for r in AUGMENTATION_RULES if r != "mask_fill"]


def test_a_shift_scale_rotate_by_that_name_counts() -> None:
    aug = full_with(*IMAGES)
    aug.transforms["shift_scale_rotate"] = {"_target_": "albumentations.ShiftScaleRotate", "border_mode": 4}
    with pytest.warns(UserWarning, match="special case of Affine"):
        rules = augmentation_rules(aug, FACTS)
    assert the_rule(rules, "shift_scale_rotate").holds


@pytest.mark.parametrize("name", ["flip", "shift_scale_rotate", "dropout"])
def test_a_transform_that_never_fires_does_not_count(name: str) -> None:
    assert broken_by(f"aug.transforms.{name}.p=0") == broken_by(f"~aug.transforms.{name}")


@pytest.mark.parametrize("nothing", ["rotate=[0,0]", "scale=[1.0,1.0]", "translate_percent=[0.0,0.0]"])
def test_an_affine_whose_range_is_empty_does_not_count(nothing: str) -> None:
    assert broken_by(f"aug.transforms.shift_scale_rotate.{nothing}") == ["shift_scale_rotate"]


def test_a_black_border_of_the_affine_is_not_taken_for_a_hole() -> None:
    assert broken_by("aug.transforms.shift_scale_rotate.border_mode=0") == []


def test_a_brighter_image_is_not_taken_for_a_hole() -> None:
    first = {"light": {"_target_": "albumentations.RandomBrightnessContrast", "p": 0.5}}
    aug = full_with()
    assert broken(augmentation_rules(AugConfig("lit", aug.backend, {**first, **aug.transforms}), FACTS)) == []


def test_a_hole_filled_with_white_breaks_the_filling_alone() -> None:
    assert broken_by("aug.transforms.dropout.fill=255") == ["hole_fill"]


@pytest.fixture
def large_images(tmp_path: Path) -> Path:
    """A folder of 64 x 64 images: two classes, three images each, in both splits."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def test_an_augmentation_that_crops_to_the_image_size_is_measured_at_that_size(
    large_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crop = "+aug.transforms.crop={_target_: albumentations.RandomCrop, height: 64, width: 64, p: 1.0}"
    data = ["data=folder", f"data.root={large_images}", "data.image_size=64", "data.val_size=0"]
    code, words = checked(capsys, *data, crop)
    assert (code, words["hole_size"]) == (0, "pass")


ROW_OVERRIDES = {
    "a value that the row gives": ("model.blocks.C1.conv4.stride=1", "C1", "conv4", {"stride": 1}),
    "a value that the row leaves to its default": ("+model.blocks.C2.conv1.dilation=2", "C2", "conv1", {"dilation": 2}),
    "a row of its own": ("+model.blocks.C2.conv4={channels: 64, dilation: 2}", "C2", "conv4", {"dilation": 2}),
}


@pytest.mark.parametrize(("override", "block", "row", "values"), ROW_OVERRIDES.values(), ids=ROW_OVERRIDES)
def test_a_row_can_be_changed_on_the_command_line(override: str, block: str, row: str, values: dict[str, int]) -> None:
    layer = compose_config(["model=reference", override]).model.blocks[block][row]
    assert {key: getattr(layer, key) for key in values} == values


def test_a_row_can_be_removed_on_the_command_line() -> None:
    config = compose_config(["model=reference", "~model.blocks.C1.conv2"])
    assert list(config.model.blocks["C1"]) == ["conv1", "conv3", "conv4"]
