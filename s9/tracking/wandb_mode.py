"""The mode that W&B itself would choose: W&B is asked, since it reads more than the environment.

W&B's settings files (`wandb offline`, `wandb disabled`, `wandb login --host`), old names (WANDB_MODE=dryrun), hosts,
netrc and identity tokens are internal to W&B and change with its version.
"""

import os
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else python's exit waits for W&B's reports about itself

import wandb
from wandb.sdk.lib import wbauth


def own_settings() -> Any:
    """W&B's settings as a plain `wandb.init()` would have them: its settings files, then the environment.

    Raises:
        Exception: W&B cannot read the settings, for example if WANDB_MODE is no mode.
    """
    return wandb.setup(wandb.Settings(silent=True)).settings


def has_credentials(host: str) -> bool:
    """Whether W&B finds an API key or an identity token for `host`, without a prompt.

    Raises:
        wandb.errors.AuthenticationError: W&B finds something that cannot be a key.
    """
    # Not public; `wandb.login(prompt=False)` would do, but gives up where the settings say offline.
    return wbauth.authenticate_session(host=host, source="s9", prompt=False, update_session=False) is not None


def pick_mode(wanted: str, own: Any) -> str:
    """online, offline or disabled. `auto` is the mode of W&B's own settings, or offline if W&B would need a prompt.

    Args:
        wanted: auto, online, offline or disabled.
        own: what `own_settings` returns.

    Raises:
        LookupError: online is wanted, and there are no credentials.
    """
    if wanted == "auto":
        if own.mode == "disabled":
            return "disabled"
        return "online" if own.mode not in ("offline", "dryrun") and has_credentials(own.base_url) else "offline"
    if wanted == "online" and not has_credentials(own.base_url):
        raise LookupError("no key: run wandb login, or set WANDB_API_KEY")
    return wanted
