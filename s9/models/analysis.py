"""Shapes, parameters, multiplies and receptive field of a network, from its layer rows, without building it.

Receptive field and jump as in Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural Networks", 2019.
"""

from dataclasses import dataclass, replace

from s9.config.model import LayerConfig, ModelConfig
from s9.data.image_set import ImageFacts
from s9.models.s9net import convolved_size, layer_output, rows


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One row of the table. receptive_field, jump: in input pixels. size: in pixels. parameters: with batch norm."""

    name: str
    kind: str
    channels: int
    size: int
    parameters: int
    multiplies: int
    receptive_field: int
    jump: int
    values: int  # of its outputs: convolution, pooling, norm and activation


TABLE_COLUMNS = ["layer", "what", "output", "parameters", "multiplies", "receptive field", "jump"]


def table_cells(table: list[LayerRow]) -> list[list[str]]:
    """The table's cells as text, in the order of TABLE_COLUMNS."""
    return [
        [
            *(row.name, row.kind, f"{row.channels} x {row.size} x {row.size}", f"{row.parameters:,}"),
            *(f"{row.multiplies:,}", str(row.receptive_field), str(row.jump)),
        ]
        for row in table
    ]


def layer_table(config: ModelConfig, num_classes: int, image_size: int) -> list[LayerRow]:
    """One row per layer, then the average and the head.

    Raises:
        UserError: a row cannot be built.
    """
    table, shapes, field, jump = [], [(3, image_size)], 1, 1
    for name, layer in rows(config):
        in_channels, before = shapes[-1]
        channels, size = layer_output(f"model.blocks.{name}", layer, shapes, num_classes)
        area = layer.kernel_size**2
        if layer.separable:
            weights = in_channels * area + in_channels * channels
        else:
            weights = in_channels // layer.groups * channels * area
        convolved = convolved_size(layer, before)
        norm = 0 if layer.channels is None else 2 * channels
        field += (layer.kernel_size - 1) * layer.dilation * jump
        jump *= layer.stride
        field += (layer.pool - 1) * jump
        jump *= layer.pool
        table.append(
            LayerRow(
                name=name,
                kind=describe(layer),
                channels=channels,
                size=size,
                parameters=weights + norm,
                multiplies=weights * convolved**2,
                receptive_field=field,
                jump=jump,
                values=channels * (size**2 * (3 if norm else 1) + (convolved**2 if layer.pool > 1 else 0)),
            )
        )
        shapes.append((channels, size))
    return [*table, *_end(config, table[-1], num_classes)]


def _end(config: ModelConfig, last: LayerRow, num_classes: int) -> list[LayerRow]:
    """The rows of the average and, if the network has one, of the head."""
    channels, size = last.channels, last.size
    average = replace(
        last,
        name="average",
        kind=f"mean over {size}x{size}",
        size=1,
        parameters=0,
        multiplies=0,
        receptive_field=last.receptive_field + (size - 1) * last.jump,
        jump=last.jump * size,
        values=channels,
    )
    products = channels * num_classes
    head = replace(
        average,
        name="head",
        kind="fully connected",
        channels=num_classes,
        parameters=products + num_classes,
        multiplies=products,
    )
    return [average, head] if config.head else [average]


def table_lines(facts: "ModelFacts", image_size: int) -> list[str]:
    """The table as aligned text, closed by totals and sizes in MB (float32, one image; activations with gradients)."""
    cells = [TABLE_COLUMNS, *table_cells(facts.table)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(TABLE_COLUMNS))]
    lines = [
        "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    megabyte, floats = 2**20, 4
    values = 2 * sum(row.values for row in facts.table if row.name != "head")  # forward and backward
    sizes = [3 * image_size**2 * floats / megabyte, values * floats / megabyte, facts.parameters * floats / megabyte]
    return [
        *lines,
        lines[1],
        f"total: {facts.parameters:,} parameters, all trainable; {facts.multiplies:,} multiplies per image; "
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


def model_facts(config: ModelConfig, images: ImageFacts) -> ModelFacts:
    table = layer_table(config, images.num_classes, images.image_size)
    before_average = next(row for row in reversed(table) if row.name not in ("average", "head"))
    return ModelFacts(
        table, sum(r.parameters for r in table), sum(r.multiplies for r in table), before_average.receptive_field
    )


def describe(layer: LayerConfig) -> str:
    """What the row does, without defaults, as `3x3 separable, dilation 2, +2`; +2: a residual path over two layers."""
    parts = [f"{layer.kernel_size}x{layer.kernel_size}" + (" separable" if layer.separable else "")]
    parts += [
        f"{word} {value}" for word in ("stride", "dilation", "groups", "pool") if (value := getattr(layer, word)) != 1
    ]
    parts += [] if layer.padding is None else [f"padding {layer.padding}"]
    parts += [f"+{layer.residual}"] if layer.residual else []
    return ", ".join(parts)
