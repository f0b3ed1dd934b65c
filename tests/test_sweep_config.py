"""The keys of a sweep: values that make no sense are one line, and a run's own configuration does without them."""

import pytest

from s9.cli.compose import compose_config
from s9.config.sweep import SweepConfig
from s9.system.errors import UserError

# What is typed -> what its one line must hold.
WRONG = {
    "sweep.name=a/b": "the name of a folder",
    "sweep.name=..": "the name of a folder",
    "sweep.name=''": "the name of a folder",
    "sweep.retry=all": "null or failed",
    "sweep.max_failures=0": "1 or more",
    "sweep.max_failures=many": "a whole number",
    "sweep.sample=0": "1 or more, or null",
    "sweep.sample_seed=-1": "0 or more",
    "sweep.jobs_per_gpu=0": "1 or more, or null",
    "sweep.cells=[3]": "a list such as",
    "sweep.cells={a: 1}": "a list",
    "sweep.dry_run=perhaps": "true or false",
    "sweep.nmae=x": "did you mean sweep.name",
}


@pytest.mark.parametrize("typed", WRONG)
def test_a_wrong_value_is_one_line_that_names_the_key(typed: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_config(["data=digits", typed])
    line = str(caught.value)
    assert typed.partition("=")[0] in line and WRONG[typed] in line and "\n" not in line


def test_the_defaults_of_the_schema_are_those_of_the_configuration() -> None:
    assert compose_config(["data=digits"]).sweep == SweepConfig()


def test_cells_keep_keys_with_dots_and_values_of_every_kind() -> None:
    typed = "sweep.cells=[{optimizer.lr: 0.1, model: dilated, trainer.clip_norm: null}, {seed: 3}]"
    cells = compose_config(["data=digits", typed]).sweep.cells
    assert cells == [{"optimizer.lr": 0.1, "model": "dilated", "trainer.clip_norm": None}, {"seed": 3}]
