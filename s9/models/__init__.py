"""Networks: built from the rows of conf/model, and analysed from the same rows; s9.models() lists trained ones."""

import sys
from types import ModuleType


class _Models(ModuleType):
    """Lets `s9.models()` be called, although `s9.models` is this package."""

    def __call__(self) -> dict[str, str]:
        """The weights that come with s9: their names, and their size and accuracies in a line."""
        from s9.models.shipped import described, shipped

        return {name: described(name) for name in shipped()}


sys.modules[__name__].__class__ = _Models
