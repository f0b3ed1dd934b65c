"""The mode is W&B's own: what its settings, its hosts, netrc and identity tokens say, and nothing is ever asked."""

import inspect
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from click.testing import CliRunner
from wandb.cli.cli import cli
from wandb.errors import AuthenticationError
from wandb.sdk.lib import wbauth

from s9.tracking.wandb_mode import has_credentials, own_settings, pick_mode
from tests.doors import HERE, SHORT, environment, shell
from tests.wandb_server import KEY, WandbServer

FORGE, CLASSIC = "api.forge.coreweave.com", "api.wandb.ai"  # the first is what `wandb login` of 0.31 writes


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """W&B reads its settings once in a process."""
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


def auto() -> str:
    return pick_mode("auto", own_settings())


def write_netrc(host: str) -> None:
    """Into the home, as `wandb login` does."""
    Path("~/.netrc").expanduser().write_text(f"machine {host}\n  login user\n  password {KEY}\n")


def test_without_credentials_auto_is_offline() -> None:
    assert auto() == "offline"


def test_a_key_in_the_environment_makes_auto_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert auto() == "online"


@pytest.mark.parametrize("host", [FORGE, CLASSIC])
def test_a_key_in_netrc_under_any_of_wandbs_hosts_makes_auto_online(host: str) -> None:
    write_netrc(host)
    assert auto() == "online"


def test_a_key_for_another_server_does_not_make_auto_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    write_netrc(FORGE)
    assert auto() == "offline"


def test_a_key_for_ones_own_server_makes_auto_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    write_netrc("wandb.example.org")
    assert auto() == "online"


def test_an_identity_token_makes_auto_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.b.c")
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    assert auto() == "online"


@pytest.mark.parametrize(
    ("said", "mode"),
    [("dryrun", "offline"), ("offline", "offline"), ("disabled", "disabled"), ("online", "online"), ("run", "online")],
)
def test_wandbs_own_mode_in_the_environment_decides_for_auto(
    monkeypatch: pytest.MonkeyPatch, said: str, mode: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", said)
    assert auto() == mode


@pytest.mark.parametrize(("word", "mode"), [("offline", "offline"), ("disabled", "disabled")])
def test_wandbs_own_commands_decide_for_auto(monkeypatch: pytest.MonkeyPatch, word: str, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert CliRunner().invoke(cli, [word]).exit_code == 0
    wandb.teardown()
    assert auto() == mode


def test_the_configured_mode_wins_over_wandbs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert pick_mode("offline", own_settings()) == "offline"


def test_online_is_wanted_and_wandbs_own_mode_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert pick_mode("online", own_settings()) == "online"


def test_online_without_credentials_says_what_to_do() -> None:
    with pytest.raises(LookupError, match="wandb login"):
        pick_mode("online", own_settings())


def test_what_cannot_be_a_key_is_refused_in_wandbs_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(AuthenticationError, match="WANDB_API_KEY invalid"):
        has_credentials(f"https://{FORGE}")


def test_a_mode_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ValueError, match="mode"):
        own_settings()


def test_looking_for_credentials_does_not_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_credentials(f"https://{FORGE}")
    assert wbauth.session_credentials(host=f"https://{FORGE}") is None


def test_wandbs_own_function_that_looks_for_credentials_is_still_there() -> None:
    """It is not public: with a new version of W&B look here first."""
    known = set(inspect.signature(wbauth.authenticate_session).parameters)
    assert {"host", "source", "prompt", "update_session"} <= known


# Against what W&B does


@pytest.fixture
def server() -> Iterator[WandbServer]:
    server = WandbServer()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("said", [None, "dryrun", "offline", "disabled", "online", "run"])
def test_auto_is_what_a_plain_wandb_init_does(
    monkeypatch: pytest.MonkeyPatch, server: WandbServer, said: str | None
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    if said is not None:
        monkeypatch.setenv("WANDB_MODE", said)
    mode = auto()
    wandb.teardown()
    with wandb.init(settings=wandb.Settings(silent=True)) as run:
        plain = "disabled" if run.disabled else "offline" if run.offline else "online"
    assert mode == plain
    assert bool(server.runs) == (mode == "online")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "online"])
def test_nothing_is_asked_on_a_terminal(tmp_path: Path, mode: str) -> None:
    """W&B asks for a key where it has a terminal, and would wait for the answer."""
    short = [word for word in SHORT if word != "wandb=disabled"]
    person, terminal = pty.openpty()
    done = subprocess.run(
        shell("train", *short, HERE, f"wandb={mode}"),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        timeout=120,
    )
    os.close(terminal)
    os.close(person)
    assert done.returncode == 0 and "W&B offline: " in done.stdout
    assert ("no key: run wandb login" in done.stdout) == (mode == "online")
