"""Which files of a folder are train, val and test: held out where the folder lacks a split, without copies."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from s9.config.data import FolderConfig
from s9.data.image_set import Problem, Rows, Split
from s9.data.sources.copies import Images, as_bytes, copies
from s9.data.sources.folder_files import File, FolderFiles
from s9.data.split import HALF, MOST_TEST, held_out
from s9.system.errors import UserError

log = logging.getLogger("s9")

TEST_SEED = 0  # fixed once for all, so that all runs on a folder report the same test


@dataclass(frozen=True)
class Part:
    """Some files of one of the folder's splits. stored: the arrays of that split by name; rows: int64, ascending."""

    files: list[File]
    all_labels: np.ndarray  # int64, of `files`
    stored: Mapping[str, np.ndarray]
    rows: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        found: np.ndarray = self.all_labels[self.rows]
        return found

    @property
    def split(self) -> Split:
        images = self.stored["images"]
        assert isinstance(images, np.memmap)
        return Split(Rows(images, self.rows), self.labels)

    def divided(self, kept: np.ndarray, held: np.ndarray) -> tuple["Part", "Part"]:
        return replace(self, rows=self.rows[kept]), replace(self, rows=self.rows[held])

    def without(self, places: list[int]) -> "Part":
        return replace(self, rows=np.delete(self.rows, places))

    def file(self, place: int) -> File:
        return self.files[self.rows[place]]

    @property
    def compared(self) -> Images:
        return Images(*(self.stored[name][self.rows] for name in Images._fields))


def whole_parts(found: FolderFiles, arrays: Mapping[str, np.ndarray]) -> dict[str, Part]:
    """All readable files of each split that the folder has.

    Raises:
        UserError: no file of a class of train can be read.
    """
    broken = {split: set[int]() for split in found.splits}
    for split, index, _ in arrays["broken"].tolist() if "broken" in arrays else []:
        broken[split].add(int(index))
    parts = {}
    for split, files in found.splits.items():
        rows = np.delete(np.arange(len(files)), sorted(broken[split]))
        labels = np.array([file.label for file in files], np.int64)
        stored = {name: arrays[f"{split}_{name}"] for name in ("images", "digests", "whole", "near", "small")}
        parts[split] = Part(files, labels, stored=stored, rows=rows)
        for label in sorted(set(range(len(found.class_names))) - set(parts[split].labels.tolist())):
            folder = found.folders[split] / found.class_names[label]
            raise UserError(
                f"{folder}: the class is empty: none of its files can be read as an image; mend or remove it"
            )
    return parts


def split_up(parts: Mapping[str, Part], config: FolderConfig, seed: int) -> tuple[Part, Part, Part]:
    """(train, val, test). Without a test folder, test is held out of val, or of train; without val, val is of train.

    Raises:
        UserError: a size leaves nothing to train on, or is too small for one image per class.
    """
    train, val, test = parts["train"], parts.get("val"), parts.get("test")
    if test is None:
        of = train if val is None else val
        size = HALF if config.test_size is None and val is not None else config.test_size
        rest, test = of.divided(*held_out(of.labels, size, TEST_SEED, key="data.test_size", most=MOST_TEST))
        train, val = (rest, None) if val is None else (train, rest)
        there = "" if val is None else " of val"
        log.info(f"test: {len(test.rows):,} of {len(of.rows):,} images{there}, the same in every run")
    elif config.test_size is not None:
        log.info(f"data.test_size={config.test_size} is not used: the folder has a test")
    if val is None:
        train, val = train.divided(*held_out(train.labels, config.val_size, seed))
    return train, val, test


def without_copies(
    parts: tuple[Part, Part, Part], config: FolderConfig, root: Path
) -> tuple[tuple[Part, Part, Part], list[Problem]]:
    """(train, val, test) without the images of train that are in val or test too, and those of val that are in test.

    The images are only found, not dropped, with data.duplicates=keep. The log has one line of them.

    Raises:
        UserError: data.duplicates=refuse and there are some, or a class of train, or val, has no other images.
    """
    train, val, test = parts
    other_class = in_two_classes(parts, root)  # first: of such a pair the image that is dropped may be the right one
    cleaned = _Cleaned(config.duplicates, root)
    val = cleaned.part(val, [test])
    train = cleaned.part(train, [test, val])
    if lost := set(parts[0].labels.tolist()) - set(train.labels.tolist()):
        name = next(file.name for file in train.files if file.label == min(lost)).split("/")[0]
        raise UserError(
            f"data.duplicates=drop: all images of {name} in train are in val or test too; remove the copies, or keep "
            "them with data.duplicates=keep"
        )
    if len(parts[1].rows) and not len(val.rows):
        raise UserError(
            "data.duplicates=drop: all images of val are in test too; remove the copies, or keep them with "
            "data.duplicates=keep"
        )
    cleaned.say()
    return (train, val, test), [*cleaned.problems, *other_class]


def in_two_classes(parts: tuple[Part, ...], root: Path) -> list[Problem]:
    """The images whose pixels are also those of an image of another class; the log counts them, copies or not."""
    first: dict[bytes, File] = {}
    problems = []
    for part in parts:
        for place, digest in enumerate(as_bytes(part.stored["whole"][part.rows])):
            file = part.file(place)
            known = first.setdefault(digest, file)
            if known.label != file.label:
                pair = below(file, root), below(known, root)
                problems.append(Problem(pair[0], "same pixels in another class", other=pair[1], done="named"))
    if problems:
        one, are = problems[0], "image is" if len(problems) == 1 else "images are"
        log.warning(f"{len(problems):,} {are} in two classes, such as {one.file} and {one.other}: one may be wrong")
    return problems


class _Cleaned:
    """Finds the copies, and drops them where that is asked for."""

    def __init__(self, duplicates: str, root: Path):
        self.duplicates, self.root = duplicates, root
        self.problems: list[Problem] = []

    def part(self, ours: Part, others: list[Part]) -> Part:
        """`ours` without the images that are in `others` too."""
        for other in others:
            found = copies(ours.compared, other.compared)
            for copy in found:
                what = "same pixels as" if copy.same else "near copy of"
                pair = below(ours.file(copy.number), self.root), below(other.file(copy.of), self.root)
                done = "dropped" if self.duplicates == "drop" else "kept"
                self.problems.append(Problem(pair[0], what, other=pair[1], done=done))
            if self.duplicates == "drop":
                ours = ours.without([copy.number for copy in found])
        return ours

    def say(self) -> None:
        same = sum(problem.problem.startswith("same") for problem in self.problems)
        near, one = len(self.problems) - same, len(self.problems) == 1
        kinds = ((same, "with the same pixels"), (near, "near copy" if near == 1 else "near copies"))
        listed = ", ".join(f"{count:,} {kind}" for count, kind in kinds if count)
        if listed:
            are = "image is" if one else "images are"
            said = f"{len(self.problems):,} {are} in two of train, val and test ({listed})"
            if self.duplicates == "refuse":
                first = self.problems[0]
                raise UserError(
                    f"data.duplicates=refuse: {said}, such as {first.file} ({first.problem} {first.other}); remove "
                    f"{'it' if one else 'them'}, or say data.duplicates=drop, which leaves out one of each pair"
                )
            kept = "both are kept" if one else "all are kept"
            done = f"one of {'the' if one else 'each'} pair is dropped" if self.duplicates == "drop" else kept
            log.info(f"{said}; {done} (data.duplicates={self.duplicates})")


def below(file: File, root: Path) -> str:
    """The name of a file as it is reported: from the root on."""
    path = Path(file.path)
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
