"""A user's own images: any sane folder of class folders, decoded once and kept in s9's cache, never in their folder."""

import hashlib
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from s9.config.data import FolderConfig
from s9.data.image_set import ImageFacts, ImageSet, Problem
from s9.data.sources.decode import DIGEST_SIZE, original
from s9.data.sources.folder_decode import chosen_size, decoded, too_deep
from s9.data.sources.folder_files import FolderFiles, folder_files
from s9.data.sources.folder_parts import Part, below, split_up, whole_parts, without_copies
from s9.system.errors import UserError
from s9.system.letters import one_line

log = logging.getLogger("s9")

NAMED = 3  # broken files that the log names
LISTED = 6  # classes that the log names


class _Folder(NamedTuple):
    """What is in the folder. parts: the readable images of each split that it has."""

    found: FolderFiles
    broken: list[Problem]
    arrays: Mapping[str, np.ndarray]
    parts: dict[str, Part]
    image_size: int

    def facts(self, root: Path, learned_from: np.ndarray) -> ImageFacts:
        """learned_from: rows of the first split, which is train if there is one; mean and std are theirs."""
        mean, std = _mean_and_std(self.arrays[f"{next(iter(self.parts))}_sums"][np.sort(learned_from)], self.image_size)
        names = self.found.class_names
        contents = {split: _contents(names, part) for split, part in self.parts.items()}
        bits = int(self.arrays["high_depth"][1]) if "high_depth" in self.arrays else None
        return ImageFacts(_variant(root), names, self.image_size, mean=mean, std=std, contents=contents, bits=bits)


def load_folder(config: FolderConfig, seed: int, bits: int | None = None) -> ImageSet:
    """The images under `data.root`, as squares of `data.image_size`; mean and std are those of train with val.

    The log says what was taken and left out, the image size if it was chosen, which images are test and val, how many
    are copies, and how more than 8 bits per channel became 8.

    Args:
        bits: as for `decoded`.

    Raises:
        UserError: names the folder or file that is missing, empty, broken or of a class that the other split lacks.
    """
    root, whole = Path(config.root), _read(config, bits)
    parts = whole.parts
    train, val, test = split_up(parts, config, seed)
    if "val" in parts:
        unused = f"; data.val_size={config.val_size} is not used" if config.val_size else ""
        log.info(f"val: {len(val.rows):,} images of {whole.found.folders['val']}{unused}")
    learned_from = np.concatenate([train.rows, val.rows]) if "val" not in parts else train.rows
    facts = whole.facts(root, learned_from)
    (train, val, test), problems = without_copies((train, val, test), config, root)
    return ImageSet(
        facts,
        train.split,
        val.split,
        test.split,
        test_names=tuple(test.file(place).name for place in range(len(test.rows))),
        problems=(*whole.broken, *problems),
        original=partial(_original, train, facts.bits),
    )


def all_of_folder(config: FolderConfig, bits: int | None = None) -> tuple[ImageFacts, dict[str, Part]]:
    """(facts, the readable images by the folder's own splits): nothing is held out, no copy is dropped; to be scored.

    Args:
        bits: as for `decoded`.

    Raises:
        UserError: as `load_folder`; one class of any split is enough.
    """
    whole = _read(config, bits, to_train=False)
    first = next(iter(whole.parts.values()))
    return whole.facts(Path(config.root), first.rows), whole.parts


def _read(config: FolderConfig, bits: int | None, *, to_train: bool = True) -> _Folder:
    """Finds and decodes the images, and says so. bits: as for `decoded`. to_train: as in `folder_files`."""
    found = folder_files(Path(config.root), drop_gone=config.broken == "drop", to_train=to_train)
    chosen, side = (config.image_size, 0) if config.image_size else chosen_size(next(iter(found.splits.values())))
    arrays = decoded(found.splits, config, chosen, bits)
    broken = _broken(found, arrays, config)
    log.info(_taken(found, broken))
    if side and side != chosen:
        log.info(
            f"images become {chosen} x {chosen} pixels (data.resize={config.resize}); half of them have {side} or more "
            "on their shorter side; data.image_size=<pixels> chooses another size"
        )
    _say_depth(found, arrays, config)
    return _Folder(found, broken, arrays, parts=whole_parts(found, arrays), image_size=chosen)


def _variant(root: Path) -> str:
    """Accuracies on the JPEG copy of CIFAR-10 must not be taken for those on the original files."""
    return "CIFAR-10 (JPEG)" if root.name == "cifar10-images" else f"folder {root.name}"


def _broken(found: FolderFiles, arrays: Mapping[str, np.ndarray], config: FolderConfig) -> list[Problem]:
    """The files that are no readable image. Raises UserError, which names the first, if these are refused."""
    problems = []
    for split, index, reason in arrays["broken"].tolist() if "broken" in arrays else []:
        file = found.splits[split][int(index)]
        if config.broken == "refuse":
            raise UserError(f"{file.path}: cannot be read as an image ({reason}); mend or remove it")
        problems.append(Problem(below(file, Path(config.root)), reason, other="", done="dropped"))
    return problems


def _taken(found: FolderFiles, broken: list[Problem]) -> str:
    """`180 images of 3 classes; left out: 1 .heic (cannot be read here)`."""
    count = sum(map(len, found.splits.values())) - len(broken)
    parts = [found.said()] if found.left_out else list[str]()
    if broken:
        names = "; ".join(f"{problem.file}: {problem.problem}" for problem in broken[:NAMED])
        more = f"; and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
        parts.append(f"{'' if found.left_out else 'left out: '}{len(broken):,} broken ({names}{more})")
    names = ", ".join(found.class_names[:LISTED]) + (", ..." if len(found.class_names) > LISTED else "")
    classes = f"{len(found.class_names):,} class{'es' if len(found.class_names) > 1 else ''}"
    taken = f"{count:,} images of {classes} ({one_line(names)})"
    return f"{taken}; {', '.join(parts)}" if parts else taken


def _say_depth(found: FolderFiles, arrays: Mapping[str, np.ndarray], config: FolderConfig) -> None:
    if "high_depth" not in arrays:
        return
    count, bits, split, index = arrays["high_depth"].tolist()
    if config.high_depth == "refuse":
        raise too_deep(list(found.splits.values())[split][index])
    have = "image has" if count == 1 else "images have"
    log.info(
        f"{count:,} {have} more than 8 bits per channel; {bits} are in use and become 8 "
        "(data.high_depth=refuse refuses them)"
    )


def _mean_and_std(sums: np.ndarray, image_size: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Per channel, in [0, 1], from exact sums of the levels and of their squares: int64 (N, 6)."""
    pixels = len(sums) * image_size**2
    totals = sums.sum(0).tolist()
    means = [total / (255 * pixels) for total in totals[:3]]
    variances = [
        (pixels * squares - total**2) / (255 * pixels) ** 2
        for total, squares in zip(totals[:3], totals[3:], strict=True)
    ]
    stds = [max(variance**0.5, 1e-6) for variance in variances]
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


def _contents(class_names: tuple[str, ...], part: Part) -> dict[str, tuple[int, str]]:
    """For each class the number of its images and a digest of their names and bytes; equal for a copied folder."""
    counts = [0] * len(class_names)
    of_class = [hashlib.sha256() for _ in class_names]
    content = part.stored["digests"].tobytes()
    for row in part.rows.tolist():
        file = part.files[row]
        counts[file.label] += 1
        of_file = content[row * DIGEST_SIZE : (row + 1) * DIGEST_SIZE]
        of_class[file.label].update(file.name.encode(errors="surrogateescape") + b"\0" + of_file)
    return {name: (counts[i], of_class[i].hexdigest()[:24]) for i, name in enumerate(class_names)}


def _original(train: Part, bits: int | None, place: int, longest: int) -> np.ndarray:
    return original(Path(train.file(place).path), longest, bits)
