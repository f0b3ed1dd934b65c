"""The wheel: it has all that a user needs who never sees the checkout, and works in any folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.awkward_folder import picture
from tests.conftest import ROOT
from tests.doors import environment

QUICK = ("model=strided", "aug=none", "trainer.epochs=1", "trainer.batch_size=8", "wandb=disabled")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, as pip leaves them."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def python(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python prints in `folder`, with the s9 of the wheel."""
    env = environment(folder) | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_is_the_s9_of_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    assert python(installed, tmp_path, "-c", "import s9; print(s9.__file__)").startswith(str(installed))


@pytest.mark.slow
def test_its_size_is_a_few_megabytes(wheel: Path) -> None:
    assert 1_000_000 < wheel.stat().st_size < 5_000_000


@pytest.mark.slow
def test_nothing_of_outputs_data_or_tests_is_in_it(installed: Path) -> None:
    found = {path.relative_to(installed).parts[0] for path in installed.rglob("*") if path.is_file()}
    assert sorted(found) == ["s9", "s9-0.1.0.dist-info"]


@pytest.mark.slow
def test_every_option_of_the_checkout_is_in_it(installed: Path) -> None:
    there = {str(path.relative_to(installed / "s9" / "conf")) for path in (installed / "s9" / "conf").rglob("*.yaml")}
    assert there == {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").rglob("*.yaml")}


@pytest.mark.slow
def test_a_shipped_network_names_what_is_in_a_picture(installed: Path, tmp_path: Path) -> None:
    picture(1, (200, 40, 40)).save(tmp_path / "a.png")
    said = python(
        installed, tmp_path, "-c", "import s9; print(len(s9.models()), s9.load('frontier')('a.png').names[0])"
    )
    assert said.split() == ["1", "airplane"]


@pytest.mark.slow
def test_a_folder_of_photos_is_trained_on_and_the_network_is_used(installed: Path, tmp_path: Path) -> None:
    for label, colour in (("red", (220, 40, 40)), ("blue", (40, 40, 220))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(20):
            picture(number, colour).save(tmp_path / "photos" / label / f"{number}.jpg")
    data = ("data=folder", "data.root=photos", "data.duplicates=keep", "hydra.run.dir=outputs/mine")
    python(installed, tmp_path, "-m", "s9.train", *data, *QUICK)
    said = python(installed, tmp_path, "-m", "s9.predict", "run=outputs/mine", "image=photos/red", "format=csv")
    assert len({line.split(",")[0] for line in said.splitlines()[1:]}) == 20
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["mine"]
