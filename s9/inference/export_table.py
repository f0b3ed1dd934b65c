"""How large each form of a network is, and how many images a second it takes on this machine's CPU."""

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import safetensors.torch
import torch
from torch import nn

from s9.inference.classifier import Classifier
from s9.inference.export_images import made_up
from s9.inference.export_network import Logits, Prepared, as_input, silent
from s9.system.runtime import processor_name

ROUNDS = {1: 51, 128: 9}  # by batch size; all forms take turns in each round, since a machine's speed changes


def speeds(classifier: Classifier, files: Mapping[str, tuple[int, Logits]], preprocessing: bool) -> str:
    """A table in Markdown, with what it holds for.

    Args:
        files: from the names of forms to the size in bytes and what computes; torch itself is added.
    """
    network = Prepared(classifier.model, classifier, preprocessing).eval()
    size = len(
        safetensors.torch.save({name: value.contiguous() for name, value in classifier.model.state_dict().items()})
    )
    forms = {"torch": (size, _in_torch(network)), "torch.compile": (size, _in_torch(_compiled(network))), **files}
    images = made_up(max(ROUNDS), classifier.facts.image_size)
    inputs = {batch: as_input(classifier, images[:batch], preprocessing) for batch in ROUNDS}
    failed = _failures(forms, inputs)
    forms = {name: form for name, form in forms.items() if name not in failed}
    seconds = {batch: _seconds(forms, inputs[batch], rounds) for batch, rounds in ROUNDS.items()}

    titles = [f"batch {batch}: images/s | times torch" for batch in ROUNDS]
    rows = [f"| {classifier.name} | bytes | {' | '.join(titles)} |", f"|---|{'---:|' * (1 + 2 * len(ROUNDS))}"]
    for name, (content, _) in forms.items():
        cells = [f"{batch / s[name]:,.0f} | {s['torch'] / s[name]:.2f}" for batch, s in seconds.items()]
        rows.append(f"| {name} | {content:,} | {' | '.join(cells)} |")
    rounds = " and ".join(str(count) for count in ROUNDS.values())
    how = f"{processor_name()}, {torch.get_num_threads()} threads, float32 but for int8; medians of {rounds} rounds"
    left_out = [f"{name}: left out, since it fails here: {why}" for name, why in failed.items()]
    return "\n".join([*rows, f"{how}, in turns. Other programs on the machine change these numbers.", *left_out])


def _in_torch(network: Callable[[torch.Tensor], torch.Tensor]) -> Logits:
    def logits(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(images).contiguous(memory_format=torch.channels_last)).numpy()

    return logits


def _compiled(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(network, dynamic=False)
    return compiled


def _failures(forms: Mapping[str, tuple[int, Logits]], inputs: Mapping[int, np.ndarray]) -> dict[str, str]:
    """Runs each form once, which compiles what is to be compiled; the first line of the error where that fails."""
    failed = {}
    for name, (_, compute) in forms.items():
        try:
            with silent():
                for images in inputs.values():
                    compute(images)
        except RuntimeError as error:  # torch.compile without a C++ compiler
            failed[name] = str(error).splitlines()[0]
    return failed


def _seconds(forms: Mapping[str, tuple[int, Logits]], images: np.ndarray, rounds: int) -> dict[str, float]:
    """The median of each form's seconds for these images."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, (_, compute) in forms.items():
            compute(images)  # not timed: the threads of the form before may still spin, and its own sleep
            started = time.perf_counter()
            compute(images)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
