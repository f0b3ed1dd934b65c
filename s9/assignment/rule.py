"""One demand of the assignment, and whether it holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One demand of the assignment with what was measured."""

    name: str
    demand: str
    measured: str
    holds: bool
