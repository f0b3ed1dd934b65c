"""W&B's own sweeps: what `wandb agent` tells a run that it starts, by the environment."""

import os


def run_id_of_agent() -> str | None:
    """The id by which W&B's sweep knows the run; None where no agent has started this process.

    W&B accepts no other id from such a process, also where the process resumes a run that began under another id.
    """
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
