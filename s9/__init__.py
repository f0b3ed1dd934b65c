"""s9: a Hydra-configured, sweepable experiment repository for small image classifiers."""

import signal
import sys

if sys.argv[:1] == ["-m"]:  # a door is being started: Ctrl-C while it imports ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s9.system.process import share_cores

__version__ = "0.1.0"

share_cores()  # here, since libgomp reads how to wait when torch loads it
