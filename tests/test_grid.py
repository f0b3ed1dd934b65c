"""Which jobs a sweep's arguments ask for: grids, cells, exclusions and samples, with any values."""

from typing import Any

import pytest

from s9.cli.grid import MOST, Combination, Grid, grid_of, one_by_one
from s9.cli.mistakes import parse
from s9.config.sweep import SweepConfig
from s9.system.errors import UserError

OPTIONS = {"model": ["dilated", "dilated_wide", "strided"], "data": ["digits", "digits_schema"]}
ODD = [
    "a b",
    "a,b",
    "it's",
    'say "yes"',
    "'\"",
    "a=b",
    "null",
    "true",
    "1",
    "1e3",
    "",
    "[1]",
    "{a: 1}",
    "ä",
    "back\\slash",
]
ODD += ["choice(1,2)", " ends with blanks ", "two\nlines", "#5", "a:b", "-", "~x", "+x"]


def options(group: str) -> list[str]:
    return OPTIONS.get(group, [])


def known(_: Combination, key: str) -> Any:
    return {"model": "strided", "model.dropout": 0.1}[key]


def grid(*arguments: str, **sweep: Any) -> Grid:
    return grid_of(arguments, SweepConfig(**sweep), options, known)


def jobs(*arguments: str, **sweep: Any) -> list[str]:
    """The arguments of each job, in one line."""
    return [" ".join(combination.arguments) for combination in grid(*arguments, **sweep).combinations]


def said(*arguments: str, **sweep: Any) -> str:
    """The error's one line."""
    with pytest.raises(UserError) as error:
        grid(*arguments, **sweep)
    assert "\n" not in str(error.value)
    return str(error.value)


def value_of(argument: str) -> Any:
    value = parse(argument).value()
    return getattr(value, "text", value)


def test_a_grid_is_all_values_of_each_key_with_all_of_the_others() -> None:
    assert jobs("a=1,2", "seed=0,1") == ["a=1 seed=0", "a=1 seed=1", "a=2 seed=0", "a=2 seed=1"]


def test_what_has_one_value_is_in_every_job_at_its_place() -> None:
    assert jobs("a=1,2", "b=3", "c=4,5")[1] == "a=1 b=3 c=5"


def test_without_values_to_choose_from_it_is_one_job() -> None:
    assert jobs("a=1", "b=2") == ["a=1 b=2"]


def test_the_keys_are_those_that_are_swept_in_the_order_of_the_arguments() -> None:
    assert grid("b=1,2", "fixed=0", "a=1,2").keys == ("b", "a")


def test_a_job_names_its_values_as_a_person_writes_them() -> None:
    assert [c.swept["a"] for c in grid("a=1e-1,'1e-1',true,x").combinations] == ["0.1", "'1e-1'", "true", "x"]


def test_of_two_arguments_for_one_key_the_last_counts() -> None:
    assert jobs("a=1,2", "b=0", "a=3,4") == ["a=3 b=0", "a=4 b=0"]


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("a=range(1,4)", ["1", "2", "3"]),
        ("a=range(0,1,0.5)", ["0.0", "0.5"]),
        ("a=choice(x,y)", ["x", "y"]),
        ("a=sort(3,1,2)", ["1", "2", "3"]),
        ("a=[1,2],[3]", ["[1,2]", "[3]"]),
        ("a=null,0", ["null", "0"]),
        ("model=glob(dil*)", ["dilated", "dilated_wide"]),
        ("model=glob(*,exclude=*wide)", ["dilated", "strided"]),
        ("data=glob(*)", ["digits"]),
    ],
)
def test_the_values_are_those_that_hydra_lists(argument: str, values: list[str]) -> None:
    assert [one.partition("=")[2] for one in one_by_one(argument, options)] == values


def test_a_single_value_that_was_asked_for_as_a_sweep_is_swept() -> None:
    assert grid("model=glob(str*)", "seed=0,1").keys == ("model", "seed")


def test_an_added_key_is_swept_under_its_name_and_stays_added() -> None:
    swept = grid("+optimizer.nesterov=true,false")
    assert swept.keys == ("optimizer.nesterov",)
    assert swept.combinations[0] == Combination(("+optimizer.nesterov=true",), {"optimizer.nesterov": "true"})


def test_a_key_can_be_removed_from_every_job() -> None:
    assert jobs("~aug.transforms.gray", "seed=0,1")[1] == "~aug.transforms.gray seed=1"


def test_an_interval_is_refused_with_what_searches_it() -> None:
    assert said("lr=interval(0.1,0.2)").startswith("lr=interval(0.1,0.2): an interval has no end of values; give")


def test_a_glob_that_finds_nothing_is_refused_with_what_is_there() -> None:
    assert said("model=glob(none*)").endswith("names no value; allowed: dilated, dilated_wide, strided")


@pytest.mark.parametrize("many", [["a=range(0,1000)", "b=range(0,1000)"], ["a=range(0,1000000000000)"]])
def test_more_jobs_than_anybody_means_are_refused_at_once(many: list[str]) -> None:
    assert f"{MOST:,}" in said(*many)


@pytest.mark.parametrize("value", [text for text in ODD if "\n" not in text])
def test_an_odd_value_of_a_grid_is_the_same_in_its_job(value: str) -> None:
    quoted = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" if value != "back\\slash" else f"'{value}'"
    first, second = grid(f"name={quoted},other").combinations
    assert (value_of(first.arguments[0]), value_of(second.arguments[0])) == (value, "other")


# --- cells


@pytest.mark.parametrize("value", [*ODD, 3, 0.1, 1e-7, True, None, [1, 2], ["a,b", "null"], {"name": "x y", "p": 1.0}])
def test_an_odd_value_of_a_cell_is_the_same_in_its_job(value: Any) -> None:
    (argument,) = grid(cells=[{"key": value}]).combinations[0].arguments
    found = parse(argument).value()
    plain = (
        [getattr(item, "text", item) for item in found] if isinstance(found, list) else getattr(found, "text", found)
    )
    plain = {key: getattr(item, "text", item) for key, item in found.items()} if isinstance(found, dict) else plain
    assert (plain, type(plain)) == (value, type(value))


def test_each_cell_is_a_job() -> None:
    assert jobs(cells=[{"a": 1, "b": 2}, {"a": 3, "b": 4}]) == ["a=1 b=2", "a=3 b=4"]


def test_cells_are_run_with_every_value_of_the_grid() -> None:
    assert jobs("seed=0,1", cells=[{"a": 1}, {"a": 2}]) == ["seed=0 a=1", "seed=1 a=1", "seed=0 a=2", "seed=1 a=2"]


def test_the_keys_of_cells_come_before_those_of_the_grid() -> None:
    assert grid("seed=0,1", cells=[{"b": 1}, {"a": 1}]).keys == ("b", "a", "seed")


def test_a_cell_wins_over_the_one_value_that_an_argument_gives() -> None:
    assert jobs("a=7", "b=8", cells=[{"a": 1}, {"b": 2}]) == ["a=1 b=8", "a=7 b=2"]


def test_a_job_names_also_the_value_that_an_argument_gives_for_a_key_of_another_cell() -> None:
    assert grid("a=7", cells=[{"a": 1}, {"b": 2}]).combinations[1].swept == {"a": "7", "b": "2"}


def test_a_key_that_a_cell_adds_is_named_without_the_sign() -> None:
    added = grid(cells=[{"+optimizer.nesterov": True}])
    assert added.keys == ("optimizer.nesterov",)
    assert added.combinations[0].arguments == ("+optimizer.nesterov=true",)


@pytest.mark.parametrize("sign", ["", "+"])
def test_a_key_with_several_values_is_not_in_cells_too(sign: str) -> None:
    assert said("a=1,2", cells=[{f"{sign}a": 3}]).startswith("a: is in sweep.cells and has several values of its own")


# --- exclusions


def test_jobs_for_which_the_condition_holds_are_left_out_and_counted() -> None:
    found = grid("a=1,2,3", "b=1,2", exclude="a > 1 and b == 2")
    assert [" ".join(c.arguments) for c in found.combinations] == ["a=1 b=1", "a=1 b=2", "a=2 b=1", "a=3 b=1"]
    assert found.left_out == 2


def test_a_condition_may_name_a_key_that_no_argument_names() -> None:
    assert grid("a=1,2", exclude="model.dropout < 0.5 and a == 1").left_out == 1


def test_a_condition_compares_numbers_as_numbers_and_quoted_text_as_text() -> None:
    assert grid("a=1e1,9", exclude="a == 10").left_out == 1
    assert grid("a='10',9", exclude='a == "10"').left_out == 1


def test_a_condition_sees_the_values_of_cells_and_of_options() -> None:
    assert jobs("model=strided,dilated", cells=[{"a": 1}], exclude='model == "strided" and a == 1') == [
        "model=dilated a=1"
    ]


# --- samples


def test_a_sample_is_so_many_cells_each_with_all_its_seeds() -> None:
    found = grid("a=range(0,10)", "seed=0,1,2", sample=4).combinations
    assert len(found) == 12
    cells = [combination.swept["a"] for combination in found]
    assert all(cells.count(cell) == 3 for cell in cells) and len(set(cells)) == 4


def test_a_sample_is_the_same_each_time_and_another_with_another_seed() -> None:
    first, again, other = (jobs("a=range(0,50)", sample=5, sample_seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_a_sample_does_not_depend_on_the_number_of_seeds() -> None:
    few, many = (grid("a=range(0,50)", f"seed={seeds}", sample=5).combinations for seeds in ("0,1", "0,1,2,3"))
    assert {c.swept["a"] for c in few} == {c.swept["a"] for c in many}


def test_a_sample_is_drawn_from_what_is_not_excluded() -> None:
    assert jobs("a=1,2,3", sample=1, exclude="a < 3") == ["a=3"]


def test_a_sample_larger_than_the_grid_is_the_grid() -> None:
    assert jobs("a=1,2", sample=9) == ["a=1", "a=2"]
