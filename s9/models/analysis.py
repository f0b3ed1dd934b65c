"""What the layer rows say without building anything: shapes, parameters, multiplies, receptive field, and the rules.

Receptive field and jump as in Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural Networks", 2019.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from s9.config import LayerConfig, ModelConfig
from s9.models.s9net import layer_output, rows

PARAMETER_LIMIT = 200_000
RECEPTIVE_FIELD_LIMIT = 44
BLOCK_NAMES = ["C1", "C2", "C3", "C4"]


@dataclass(frozen=True)
class LayerRow:
    """One line of the table. receptive_field and jump in input pixels, size in pixels; parameters with batch norm."""

    name: str
    kind: str
    channels: int
    size: int
    parameters: int
    multiplies: int
    receptive_field: int
    jump: int
    has_norm: bool = False


TABLE_COLUMNS = ["layer", "what", "output", "parameters", "multiplies", "receptive field", "jump"]


def table_cells(table: list[LayerRow]) -> list[list[str]]:
    """The table as words, in the order of TABLE_COLUMNS."""
    return [
        [
            *(row.name, row.kind, f"{row.channels} x {row.size} x {row.size}", f"{row.parameters:,}"),
            *(f"{row.multiplies:,}", str(row.receptive_field), str(row.jump)),
        ]
        for row in table
    ]


def layer_table(config: ModelConfig, num_classes: int, image_size: int = 32) -> list[LayerRow]:
    """A row a layer, then the average and the head.

    Raises:
        UserError: a row cannot be built.
    """
    table, shapes, field, jump = [], [(3, image_size)], 1, 1
    for name, layer in rows(config):
        in_channels = shapes[-1][0]
        channels, size = layer_output(f"model.blocks.{name}", layer, shapes, num_classes)
        area = layer.kernel_size**2
        if layer.separable:
            weights = in_channels * area + in_channels * channels
        else:
            weights = in_channels // layer.groups * channels * area
        norm = 0 if layer.channels is None else 2 * channels
        field += (layer.kernel_size - 1) * layer.dilation * jump
        jump *= layer.stride
        table.append(
            LayerRow(name, describe(layer), channels, size, weights + norm, weights * size**2, field, jump, norm > 0)
        )
        shapes.append((channels, size))
    channels, size = shapes[-1]
    table.append(
        LayerRow("average", f"mean over {size}x{size}", channels, 1, 0, 0, field + (size - 1) * jump, jump * size)
    )
    if config.head:
        head = channels * num_classes
        table.append(
            LayerRow(
                "head",
                "fully connected",
                num_classes,
                1,
                head + num_classes,
                head,
                table[-1].receptive_field,
                table[-1].jump,
            )
        )
    return table


def table_lines(facts: "ModelFacts", image_size: int = 32) -> list[str]:
    """The table as aligned text, closed by totals and sizes in MB (float32, one image; activations with gradients)."""
    cells = [TABLE_COLUMNS, *table_cells(facts.table)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(TABLE_COLUMNS))]
    lines = [
        "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    megabyte, floats = 2**20, 4
    # Of each layer the outputs of convolution, norm and activation, forward and backward; of others one output.
    values = sum(
        2 * (3 if row.has_norm else 1) * row.channels * row.size**2 for row in facts.table if row.name != "head"
    )
    sizes = [3 * image_size**2 * floats / megabyte, values * floats / megabyte, facts.parameters * floats / megabyte]
    return [
        *lines,
        lines[1],
        f"total: {facts.parameters:,} parameters, all trainable; {facts.multiplies:,} multiplies an image; "
        f"receptive field {facts.receptive_field}",
        f"sizes: input {sizes[0]:.2f} MB, forward and backward {sizes[1]:.2f} MB, parameters {sizes[2]:.2f} MB, "
        f"together {sum(sizes):.2f} MB",
    ]


@dataclass(frozen=True)
class ModelFacts:
    """Totals of a network; multiplies for one image; receptive_field in pixels, of one position before the average."""

    table: list[LayerRow]
    parameters: int
    multiplies: int
    receptive_field: int


def model_facts(config: ModelConfig, num_classes: int, image_size: int = 32) -> ModelFacts:
    table = layer_table(config, num_classes, image_size)
    before_average = next(row for row in reversed(table) if row.name not in ("average", "head"))
    return ModelFacts(
        table, sum(r.parameters for r in table), sum(r.multiplies for r in table), before_average.receptive_field
    )


def describe(layer: LayerConfig) -> str:
    """`3x3 separable, dilation 2, +2`: what the row does, defaults left out; +2 is a residual path over two layers."""
    parts = [f"{layer.kernel_size}x{layer.kernel_size}" + (" separable" if layer.separable else "")]
    parts += [
        f"{word} {value}"
        for word, value in (("stride", layer.stride), ("dilation", layer.dilation), ("groups", layer.groups))
        if value != 1
    ]
    parts += [] if layer.padding is None else [f"padding {layer.padding}"]
    parts += [f"+{layer.residual}"] if layer.residual else []
    return ", ".join(parts)


@dataclass(frozen=True)
class Rule:
    """One demand of the assignment with what was measured."""

    name: str
    demand: str
    measured: str
    holds: bool


def model_rules(config: ModelConfig, num_classes: int, image_size: int = 32) -> list[Rule]:
    """The assignment's demands on the network (numbers 1 to 5 and 7 of its list)."""
    layers = dict(rows(config))
    facts = model_facts(config, num_classes, image_size)
    blocks = {block: list(of_block.values()) for block, of_block in config.blocks.items()}
    counts = [len(of_block) for of_block in blocks.values()]
    how = {block: _shrinks(of_block) for block, of_block in blocks.items()}
    separable = [n for n, c in layers.items() if c.separable and c.kernel_size > 1]
    dilated = [n for n, c in layers.items() if c.dilation > 1 and c.kernel_size > 1]
    padded = [n for n, c in layers.items() if c.kernel_size == 1 and (c.padding or 0) > 0]
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
        Rule("global_average", "after the last layer", f"{facts.table[len(layers)].kind}, no max pooling", True),
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
