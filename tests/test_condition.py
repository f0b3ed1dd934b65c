"""sweep.exclude: what a condition can say, and that nothing else in the text is ever done."""

from collections.abc import Callable
from typing import Any

import pytest

from s9.sweeps.condition import condition
from s9.system.errors import UserError

JOB = {
    "model": "dilated",
    "data": "digits",
    "seed": 3,
    "model.dropout": 0.2,
    "model.whiten": True,
    "optimizer.lr": 0.1,
    "optimizer.betas": [0.9, 0.99],
    "trainer.clip_norm": None,
    "aug.transforms.coarse_dropout.p": 0.5,
}


def excluded(text: str) -> bool:
    return condition(text).holds(JOB.__getitem__)


def said(text: str, values: Callable[[str], Any] = JOB.__getitem__) -> str:
    """The error's one line."""
    with pytest.raises(UserError) as error:
        condition(text).holds(values)
    line = str(error.value)
    assert line.startswith("sweep.exclude=")
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    "text",
    [
        "model.dropout > 0.1",
        "model.dropout>0.1 and optimizer.lr<0.2",
        "model.dropout > 0.5 or optimizer.lr == 0.1",
        "not model.dropout > 0.5",
        "not (model.dropout > 0.5 or seed > 5)",
        "0.1 < model.dropout < 0.3",
        "0.2 == model.dropout",
        "model.dropout >= 0.2 and model.dropout <= 2e-1",
        "model.dropout > optimizer.lr",
        'model == "dilated"',
        "model == 'dilated' and data != 'cifar10'",
        'model in ["dilated", "wide"]',
        'model not in ("wide", "strided")',
        "seed in [1, 2, 3]",
        "seed > -1",
        "0.99 in optimizer.betas",
        "optimizer.betas == [0.9, 0.99]",
        "optimizer.betas in [[0.9, 0.99], [0.9, 0.999]]",
        "model.whiten",
        "model.whiten == true and model.whiten == True",
        "trainer.clip_norm == null and trainer.clip_norm == None",
        "trainer.clip_norm in [null, 1.0]",
        "aug.transforms.coarse_dropout.p > 0.4",
        'data < "e"',
        "model.dropout > 0.1\n  and optimizer.lr < 0.2\n",
    ],
)
def test_a_true_condition_holds(text: str) -> None:
    assert excluded(text)


@pytest.mark.parametrize(
    "text",
    [
        "model.dropout > 0.2",
        "model.dropout > 0.1 and optimizer.lr > 0.2",
        "0.2 < model.dropout < 0.3",
        'model == "dilate"',
        'model in ["wide"]',
        "not model.whiten",
        "model.whiten == 1",  # as in YAML, true is no number
        "model.whiten in [0, 1]",
        'model.dropout == "0.2"',
        "trainer.clip_norm == 0",
        "trainer.clip_norm != null and trainer.clip_norm > 1",
    ],
)
def test_a_false_condition_does_not_hold(text: str) -> None:
    assert not excluded(text)


def test_the_keys_are_those_that_are_named_each_once_in_their_order() -> None:
    text = 'seed > 1 and (model == "wide" or aug.transforms.coarse_dropout.p > 0.1) and 0 < seed'
    assert condition(text).keys == ("seed", "model", "aug.transforms.coarse_dropout.p")


def test_a_value_that_decides_nothing_is_not_asked_for() -> None:
    assert condition("seed > 1 or no.such_key > 1").holds({"seed": 2}.__getitem__)


@pytest.mark.parametrize("text", ["model == dilated", "model in [wide, dilated]", 'model in ["wide", dilated]'])
def test_a_bare_word_where_a_value_belongs_is_shown_in_quotes(text: str) -> None:
    word = "wide" if "[wide" in text else "dilated"
    assert f'{word} stands where a value is expected; write text in quotes, "{word}"' in said(text)


def test_text_and_number_have_no_order_and_both_are_named() -> None:
    assert said("model < 0.1").endswith(
        '`model < 0.1` compares "dilated" with 0.1; < compares two numbers or two texts'
    )


@pytest.mark.parametrize("text", ["trainer.clip_norm > 1", "model.whiten > 0", "optimizer.betas > 0.5"])
def test_what_has_no_order_is_not_ordered(text: str) -> None:
    assert "compares two numbers or two texts" in said(text)


@pytest.mark.parametrize("text", ["model.dropout", "not model", "seed or model.whiten", "trainer.clip_norm"])
def test_a_key_alone_is_true_or_false(text: str) -> None:
    assert "neither true nor false" in said(text)


@pytest.mark.parametrize("text", ['model in "dilated_wide"', "seed in 3", "seed in true"])
def test_after_in_stands_a_list(text: str) -> None:
    assert "is no list; write in [0.1, 0.2], say" in said(text)


@pytest.mark.parametrize("text", ['"d" in model', "1 in seed"])
def test_a_key_after_in_holds_a_list(text: str) -> None:
    assert "allowed after in: a list" in said(text)


@pytest.mark.parametrize(
    "text", ["true", "1", '"model.dropout"', "1 < 2", '"model.dropout" > "0.1"', "not 1", "[1] == [1]"]
)
def test_a_condition_that_asks_nothing_of_a_job_is_refused(text: str) -> None:
    said(text)


def test_an_equals_sign_gets_the_advice_to_double_it() -> None:
    assert 'cannot be read at `= 0.1` ("equals" is written ==)' in said("model.dropout = 0.1")


@pytest.mark.parametrize("text", ["model.dropout >", "seed > 1 and", "not"])
def test_an_unfinished_condition_ends_too_early(text: str) -> None:
    assert "ends too early; allowed: keys" in said(text)


def test_nothing_is_left_out_as_a_comment() -> None:
    assert "`# or seed > 2` would be left out as a comment" in said("seed > 5 # or seed > 2")


def test_a_number_sign_in_quotes_is_text() -> None:
    assert not excluded('model == "a#b"')


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        "__import__('os').system('touch touched')",
        "open('touched', 'w') == model",
        "model.replace('d', 'e') == 'eilatee'",
        "model.__class__ == 1",
        "__builtins__ == 1",
        "().__class__.__bases__[0].__subclasses__() == seed",
        "seed + 1 > 2",
        "seed == 9 ** 9 ** 9 ** 9",
        "-seed > 1",
        "seed == -'a'",
        "seed == -true",
        "~seed == 1",
        "optimizer.betas[0] > 0.5",
        "(lambda: seed)() == 3",
        "lambda seed: seed > 1",
        "[s for s in optimizer.betas] == seed",
        "f'{seed}' == '3'",
        "model == f'{open}'",
        "model == b'dilated'",
        "(other := seed) > 1",
        "seed if model.whiten else data",
        "seed == ...",
        "seed == 3j",
        "seed is null",
        "seed in {1, 2, 3}",
        "seed == {}",
        "seed == [*optimizer.betas]",
        "seed > 1, model.whiten",
        "seed > 1; import os",
        "import os",
        "await seed",
        "yield seed",
        "seed & 1",
        "seed > 1 && model.whiten",
        "seed > 1) or (seed > 2",
        "seed > 1 \\",
        "seed == 'unfinished",
        "seed == 1\0",
        "seed == \ud800",
        "seed == \x1b[31m",
        "seed == '\x1b]0;title\x07' or [",
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said(text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "(" * 400 + "seed > 1" + ")" * 400,
        "[" * 400 + "]" * 400 + " == seed",
        "seed == " + "[" * 60 + "1" + "]" * 60,
        "not " * 200 + "model.whiten",
        "-" * 900 + "1 < seed",
        "seed" + "()" * 400,
        "seed == " + "9" * 5000,
        "seed > 1 or " * 100_000 + "seed > 2",
    ],
    ids=["parentheses", "brackets", "lists", "nots", "minus signs", "calls", "digits", "length"],
)
def test_what_is_too_deep_or_too_long_is_refused_in_a_short_line(text: str) -> None:
    assert len(said(text)) < 600


def test_a_value_that_would_steer_the_terminal_is_shown_without_that() -> None:
    assert "\x1b" not in said("model > 1", {"model": "\x1b[31mred\n"}.__getitem__)
