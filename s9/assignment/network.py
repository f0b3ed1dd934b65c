"""The assignment's demands on a network, judged from its rows."""

from collections.abc import Iterable

from s9.assignment.rule import Rule
from s9.config.model import LayerConfig, ModelConfig
from s9.models.analysis import ModelFacts
from s9.models.s9net import rows

PARAMETER_LIMIT = 200_000
RECEPTIVE_FIELD_LIMIT = 44
BLOCK_NAMES = ["C1", "C2", "C3", "C4"]


def model_rules(config: ModelConfig, facts: ModelFacts) -> list[Rule]:
    """The assignment's demands on the network (numbers 1 to 5 and 7 of its list)."""
    layers = dict(rows(config))
    blocks = {block: list(of_block.values()) for block, of_block in config.blocks.items()}
    counts = [len(of_block) for of_block in blocks.values()]
    how = {block: _shrinks(of_block) for block, of_block in blocks.items()}
    separable = [n for n, c in layers.items() if c.separable and c.kernel_size > 1]
    dilated = [n for n, c in layers.items() if c.dilation > 1 and c.kernel_size > 1]
    padded = [n for n, c in layers.items() if c.kernel_size == 1 and (c.padding or 0) > 0]
    pooled = [n for n, c in layers.items() if c.pool > 1]
    pooling = f"max pooling in {_joined(pooled)}" if pooled else "no max pooling"
    return [
        Rule("blocks", "C1 C2 C3 C4", " ".join(blocks), list(blocks) == BLOCK_NAMES),
        Rule("three_convolutions", "three in each block", _joined(map(str, counts)), all(n == 3 for n in counts)),
        Rule(
            "block_end",
            "the last of each block has stride 2, or is dilated",
            _joined(f"{block} {end or 'neither'}" for block, end in how.items()),
            all(how.values()),
        ),
        Rule(
            "receptive_field",
            f"more than {RECEPTIVE_FIELD_LIMIT} pixels",
            str(facts.receptive_field),
            facts.receptive_field > RECEPTIVE_FIELD_LIMIT,
        ),
        Rule(
            "separable",
            "a depthwise layer of more than 1 x 1, then pointwise",
            _joined(separable) or "none",
            bool(separable),
        ),
        Rule("dilated", "a dilated layer", _joined(dilated) or "none", bool(dilated)),
        Rule("global_average", "after the last layer", f"{facts.table[len(layers)].kind}, {pooling}", not pooled),
        Rule("border", "no 1 x 1 layer padded with zeros", _joined(padded) or "none", not padded),
        Rule(
            "parameters", f"fewer than {PARAMETER_LIMIT:,}", f"{facts.parameters:,}", facts.parameters < PARAMETER_LIMIT
        ),
    ]


def _shrinks(layers: list[LayerConfig]) -> str | None:
    if not layers:
        return None
    last = layers[-1]
    if last.stride == 2:
        return "stride 2"
    return f"dilation {last.dilation}" if last.stride == 1 and last.dilation > 1 and last.kernel_size > 1 else None


def _joined(words: Iterable[str]) -> str:
    return ", ".join(words)
