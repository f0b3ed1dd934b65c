"""What a sweep's answer says in words, for sweeps of which the truth is known; read from real files of made-up runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from s9.pages.sweep_data import BELOW, BEST, LIKE_BEST, lines_of
from s9.sweeps.answer import Answer, answer_of
from s9.sweeps.confirmation import ConfirmationFolder
from s9.sweeps.jobs import SweepFolder
from s9.tracking.folder import RunFolder

Cells = Mapping[tuple[str, ...], Sequence[float]]
NOISE = (0.0, 0.002, -0.002, 0.001)


def write(path: Path, keys: Sequence[str], cells: Cells, *, paired: bool = False, first_seed: int = 0) -> SweepFolder:
    """A sweep whose jobs have these val accuracies, by seed; a negative one has failed."""
    jobs = {}
    for values, scores in cells.items():
        for seed, score in enumerate(scores, first_seed):
            job = f"{'-'.join(values)}-{seed}"
            jobs[job] = dict(zip(keys, values, strict=True)) | {"seed": str(seed)}
            run = RunFolder(path / job)
            run.path.mkdir(parents=True)
            state = {"state": "done"} if score >= 0 else {"state": "failed", "reason": "loss is nan"}
            run.status.write_text(json.dumps(state | {"minutes": 1.0, "commit": "0" * 40}))
            if score >= 0:
                run.write_summary({"val": {"accuracy": score, "loss": 0.5}, "test": {"accuracy": 0.123}})
    content = {"arguments": ["-m"], "keys": [*keys, "seed"], "paired": paired, "jobs": jobs}
    (path / "sweep.json").write_text(json.dumps(content))
    return SweepFolder(path)


def scores(mean: float, seeds: int = 3) -> list[float]:
    return [mean + NOISE[seed % len(NOISE)] for seed in range(seeds)]


def said(answer: Answer, of: str) -> str:
    """The only sentence that begins so."""
    (found,) = [line for line in answer.sentences if line.startswith(of)]
    return found


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Answer]:
    return lambda keys, cells, **more: answer_of(write(tmp_path / "sweep", keys, cells, **more))


GRID = {(a, b): scores(0.80 + (0.03 if b == "0.1" else 0)) for a in ("0", "0.2") for b in ("0.03", "0.1")}


def test_the_key_that_matters_stands_in_the_headline(make: Callable[..., Answer]) -> None:
    headline = make(["model.dropout", "optimizer.lr"], GRID).sentences[0]
    assert headline == "optimizer.lr makes a difference; of model.dropout no difference can be told."


def test_the_effect_of_a_key_has_its_size_and_interval(make: Callable[..., Answer]) -> None:
    answer = make(["model.dropout", "optimizer.lr"], GRID)
    line = said(answer, "optimizer.lr makes a difference (")
    (d,) = answer.analysis.effects[1].differences
    assert "0.1 has the highest mean, val 83.00 %; 0.03 is 3.00 points below" in line
    assert f"({100 * min(abs(d.low), abs(d.high)):.2f} to {100 * max(abs(d.low), abs(d.high)):.2f})" in line


def test_a_key_that_does_not_matter_says_how_large_its_effect_may_be(make: Callable[..., Answer]) -> None:
    line = said(make(["model.dropout", "optimizer.lr"], GRID), "model.dropout: no difference can be told")
    assert "is 0.00 points" in line


def test_the_cells_below_the_best_are_counted(make: Callable[..., Answer]) -> None:
    line = said(make(["model.dropout", "optimizer.lr"], GRID), "2 of the 4 cells are below")
    assert "1 cannot be told from it" in line


def test_keys_that_act_together_are_said_to(make: Callable[..., Answer]) -> None:
    crossed = {(a, b): scores(0.80 + (0.03 if a == b else 0)) for a in "01" for b in "01"}
    answer = make(["a", "b"], crossed)
    assert answer.sentences[0].startswith("Keys act together")
    assert said(answer, "Interaction: a with b.")


def test_cells_may_differ_where_their_keys_change_together(make: Callable[..., Answer]) -> None:
    answer = make(["a", "b"], {("0", "x"): scores(0.8), ("1", "y"): scores(0.6)})
    assert answer.sentences[0].startswith("Cells differ, but values of a and b occur only together")
    assert said(answer, "1 of the 2 cells are below the best mean")


def test_keys_of_which_some_values_occur_only_together_have_the_effect_that_can_be_told(
    make: Callable[..., Answer],
) -> None:
    cells = {("0", "0.05"): scores(0.8), ("0.1", "0.1"): scores(0.85), ("0.2", "0.1"): scores(0.8)}
    line = said(make(["model.dropout", "optimizer.lr"], cells), "model.dropout makes a difference (")
    assert "0.1 is 5.00 points above 0.2 (" in line and "other values occur only together" in line


def by_seed(path: Path, cells: Mapping[str, Mapping[int, float]]) -> Answer:
    """Of a paired sweep in which each cell has seeds of its own; a negative score has failed."""
    seeds = range(1 + max(seed for scores in cells.values() for seed in scores))
    sweep = write(path, ["k"], {(k,): [own.get(seed, -1.0) for seed in seeds] for k, own in cells.items()}, paired=True)
    return answer_of(sweep)


def test_of_paired_cells_the_best_is_that_of_equal_seeds(tmp_path: Path) -> None:
    cells = {"b": {2: 0.8995}, "a": {0: 0.80, 1: 0.802, 2: 0.90}, "c": {0: 0.70, 1: 0.701, 2: 0.80}}
    answer = by_seed(tmp_path, cells)
    assert said(answer, "1 of the 3 cells are below the cell that is best on equal seeds, val 83.40 % (k=a)")
    lines = {line.cell.values["k"]: line for line in lines_of(answer)}
    assert {k: line.verdict for k, line in lines.items()} == {"a": BEST, "b": LIKE_BEST, "c": BELOW}
    assert all(line.low is None for line in lines.values())
    assert said(answer, "The standard deviation between seeds of one cell, less what all cells of a seed have")


def test_paired_cells_without_a_seed_in_common_are_said_to_be_so(tmp_path: Path) -> None:
    answer = by_seed(tmp_path, {"a": {0: 0.80, 1: 0.81}, "b": {2: 0.80, 3: 0.81}})
    assert "sweep.paired=true compares cells that have the same seeds, and too few have" in answer.sentences[0]
    assert said(answer, "Give all cells the same seeds")


def test_a_cell_that_spreads_far_more_than_the_others_is_named(make: Callable[..., Answer]) -> None:
    answer = make(["a"], {("0",): scores(0.80), ("1",): scores(0.81), ("2",): [0.7, 0.8, 0.9]})
    assert any(line.startswith("The seeds of a=2 spread far more than the others'") for line in answer.warnings)


def test_one_seed_cannot_tell(make: Callable[..., Answer]) -> None:
    answer = make(["a"], {("0",): [0.7], ("1",): [0.9]})
    assert answer.sentences[0] == "Whether anything differs cannot be told: every cell has one seed."
    assert said(answer, "Give several seeds, as in seed=0,1,2")


def test_equal_cells_cannot_be_told_from_chance(make: Callable[..., Answer]) -> None:
    rng = np.random.default_rng(1)
    answer = make(["a", "b"], {(a, b): list(0.8 + 0.003 * rng.standard_normal(3)) for a in "012" for b in "012"})
    assert answer.sentences[0] == "No difference between values of a and b can be told from chance."


def test_a_sweep_without_scores_says_so(make: Callable[..., Answer]) -> None:
    assert make(["a"], {("0",): [-1.0], ("1",): [-1.0]}).sentences == ["No job has a score yet."]


def test_failed_jobs_limit_the_answer(make: Callable[..., Answer]) -> None:
    answer = make(["a"], {("0",): [0.7, 0.71, -1.0], ("1",): [0.8, 0.81, 0.79]})
    assert "1 of 6 jobs have no score (1 failed): the answer is of the others." in answer.warnings
    assert any(line.startswith("Cells have 2 to 3 seeds") for line in answer.warnings)


def test_the_split_is_named_as_a_limit(make: Callable[..., Answer]) -> None:
    assert any("on this split" in line for line in make(["model.dropout", "optimizer.lr"], GRID).warnings)


def test_test_scores_are_nowhere(make: Callable[..., Answer]) -> None:
    answer = make(["model.dropout", "optimizer.lr"], GRID)
    assert not any("12.3" in line or "0.123" in line for line in (*answer.sentences, *answer.warnings))


def test_pairing_is_used_where_the_sweep_began_with_it(make: Callable[..., Answer]) -> None:
    assert make(["model.dropout", "optimizer.lr"], GRID, paired=True).analysis.paired


def test_without_a_confirmation_its_command_is_given(make: Callable[..., Answer]) -> None:
    line = said(make(["model.dropout", "optimizer.lr"], GRID), "The best cell's mean is too high")
    assert "python -m s9.confirm" in line


ONE, BASELINE = {"a": "1"}, {"a": "0"}


def confirmed(
    tmp_path: Path, best: Sequence[float], baseline: Sequence[float], counts: Sequence[int], *, paired: bool = False
) -> Answer:
    sweep = write(tmp_path / "sweep", ["a"], {("0",): scores(0.80), ("1",): scores(0.83)})
    folder = ConfirmationFolder(sweep.path)
    for count in counts:
        folder.note(folder.asked_for(ONE, BASELINE, count, used=[0, 1, 2], paired=paired))
    write(folder.folder.path, ["a"], {("1",): best, ("0",): baseline}, first_seed=3)
    return answer_of(sweep)


def test_a_confirmation_says_by_how_much(tmp_path: Path) -> None:
    line = said(confirmed(tmp_path, scores(0.82, 4), scores(0.80, 4), [4]), "Confirmed on 4 fresh seeds each")
    assert "a=1 against a=0 is 2.00 points higher" in line
    assert "the difference is real on this split" in line


def test_a_confirmation_may_find_nothing(tmp_path: Path) -> None:
    line = said(confirmed(tmp_path, scores(0.80, 4), scores(0.80, 4), [4]), "Confirmed on 4 fresh seeds each")
    assert "cannot be told from chance" in line


def test_a_confirmation_that_is_not_whole_gives_no_number(tmp_path: Path) -> None:
    line = said(confirmed(tmp_path, scores(0.82, 2), scores(0.80, 4), [4]), "Confirmation of a=1 against a=0")
    assert "2 and 4 of 4 fresh seeds are done" in line and "points" not in line


def test_seeds_that_the_sweep_has_by_now_are_said_to_be_fresh_no_longer(tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep", ["a"], {("0",): scores(0.80), ("1",): scores(0.83)})
    folder = ConfirmationFolder(sweep.path)
    folder.note(folder.asked_for(ONE, BASELINE, 2, used=[0, 1], paired=False))
    assert said(answer_of(sweep), "The sweep has seeds of a confirmation by now (2)")


def test_a_cell_whose_seeds_score_the_same_is_confirmed_without_a_warning(tmp_path: Path) -> None:
    assert said(confirmed(tmp_path, [0.9, 0.9, 0.9], scores(0.8, 3), [3]), "Confirmed on 3 fresh seeds each")


@pytest.mark.parametrize(
    ("best", "baseline", "paired", "why"),
    [
        ([0.91, 0.91], [0.90, 0.90], False, "the seeds of a cell all score the same"),
        ([0.91, 0.92], [0.90, 0.91], True, "each seed shows the same difference"),
        ([0.91, 0.91], [0.91, 0.91], True, "each seed shows the same difference"),
    ],
)
def test_a_confirmation_without_spread_cannot_be_tested(
    tmp_path: Path, best: list[float], baseline: list[float], paired: bool, why: str
) -> None:
    answer = confirmed(tmp_path, best, baseline, [2], paired=paired)
    assert said(answer, "Confirmation of a=1 against a=0") == (
        f"Confirmation of a=1 against a=0: {why}, so nothing says what is chance."
    )


def test_every_confirmation_is_shown(tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep", ["a"], {("0",): scores(0.80), ("1",): scores(0.83), ("2",): scores(0.79)})
    folder = ConfirmationFolder(sweep.path)
    for baseline in (BASELINE, {"a": "2"}):
        folder.note(folder.asked_for(ONE, baseline, 2, used=[0, 1, 2], paired=False))
    folder.folder.note(["-m"], ["a", "seed"], [])
    answer = answer_of(sweep)
    assert said(answer, "Confirmation of a=1 against a=0") and said(answer, "Confirmation of a=1 against a=2")
    assert said(answer, "2 confirmations were made")


def test_the_sweep_of_a_confirmation_points_to_the_sweep_that_it_confirms(tmp_path: Path) -> None:
    confirmed(tmp_path, scores(0.82, 4), scores(0.80, 4), [4])
    line = said(answer_of(SweepFolder(tmp_path / "sweep-confirm")), "These are fresh seeds")
    assert f"python -m s9.report sweep={tmp_path / 'sweep'} shows" in line


def test_the_best_of_a_sweep_that_was_widened_is_to_be_confirmed_anew(tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep", ["a"], {("0",): scores(0.80), ("1",): scores(0.83), ("2",): scores(0.9)})
    folder = ConfirmationFolder(sweep.path)
    folder.note(folder.asked_for(ONE, BASELINE, 2, used=[0, 1, 2], paired=False))
    assert said(answer_of(sweep), "The best mean is now that of another cell, a=2")


@pytest.mark.parametrize("path", [".", "../sweep", "../sweep/."])
def test_a_sweep_is_confirmed_beside_its_folder_wherever_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "sweep").mkdir()
    monkeypatch.chdir(tmp_path / "sweep")
    assert ConfirmationFolder(Path(path)).folder.path.resolve() == tmp_path / "sweep-confirm"


def test_raising_the_number_of_seeds_is_said(tmp_path: Path) -> None:
    assert said(confirmed(tmp_path, scores(0.82, 4), scores(0.80, 4), [2, 4]), "The number of fresh seeds was raised")


def test_fresh_seeds_are_none_of_the_sweep(tmp_path: Path) -> None:
    asked = ConfirmationFolder(tmp_path / "sweep").asked_for(ONE, BASELINE, 3, used=[0, 7, 2], paired=False)
    assert asked.seeds == [8, 9, 10]


def test_more_seeds_keep_those_that_are_done(tmp_path: Path) -> None:
    folder = ConfirmationFolder(tmp_path / "sweep")
    folder.note(folder.asked_for(ONE, BASELINE, 2, used=[0], paired=False))
    assert folder.asked_for(ONE, BASELINE, 4, used=[0], paired=False).seeds == [1, 2, 3, 4]


def test_another_best_gets_seeds_of_its_own(tmp_path: Path) -> None:
    folder = ConfirmationFolder(tmp_path / "sweep")
    folder.note(folder.asked_for(ONE, BASELINE, 2, used=[0], paired=False))
    assert folder.asked_for({"a": "2"}, BASELINE, 2, used=[0], paired=False).seeds == [3, 4]
