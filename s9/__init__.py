"""s9: a Hydra-configured, sweepable experiment repository for small image classifiers."""

import signal
import sys

if sys.argv[:1] == ["-m"]:  # a command starts: Ctrl-C during its imports ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s9.system.process import share_cores

__version__ = "0.1.0"

share_cores()  # here, since libgomp reads how threads wait when torch loads it
