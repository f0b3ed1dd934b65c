"""s9: a Hydra-configured, sweepable experiment repository for small image classifiers.

s9.load("frontier")("cat.jpg")   a trained network, by name, run folder or file of weights, and what it says
s9.models()                      the trained networks that come with s9
s9.UserError                     what both raise, in one plain line
"""

import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s9.inference.classifier import load as load

if sys.argv[:1] == ["-m"]:  # a command starts: Ctrl-C during its imports ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s9.system.errors import UserError as UserError
from s9.system.process import share_cores

__version__ = "0.1.0"

share_cores()  # here, since libgomp reads how threads wait when torch loads it


def __getattr__(name: str) -> Any:
    """`load` and `models` are imported when they are used, since torch takes seconds."""
    if name == "load":
        return importlib.import_module("s9.inference.classifier").load
    if name == "models":
        return importlib.import_module("s9.models")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
