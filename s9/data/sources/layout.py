"""Finds which folders below a root hold train, val and test, by the names that are usual for them."""

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from s9.data.sources.formats import READABLE
from s9.system.errors import UserError

NAMES = {  # of a split's folder, in any case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".xz", ".7z", ".rar", ".bz2")
WANTED = "wanted: <root>/<class>/*, or <root>/train/<class>/* and, if there are any, <root>/val and <root>/test"
OTHER_WAYS = "Other ways: data=cifar10 data.archive=<file>, or data=digits"


@dataclass
class Layout:
    """folders: by split, in the order of NAMES; only `train`, the root itself, where the classes lie in the root."""

    folders: dict[str, Path]
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind, as (singular, plural)


def layout_of(root: Path) -> Layout:
    """The folders of train, val and test below the absolute path `root`.

    A folder that holds nothing but one other folder is taken for that one. A folder of test images without classes
    cannot be scored and counts as left out.

    Raises:
        UserError: there is no such folder, two folders are the same split, or folders of splits hold no classes.
    """
    root = _unwrapped(root)
    inside = {entry.name: entry for entry in entries(root) if not hidden(entry.name) and is_folder(entry)}
    found = {split: _named(root, split, list(inside)) for split in NAMES}
    given = {split: root / name for split, name in found.items() if name and _has_folders(root / name)}
    of_splits = len(inside) > 1 and set(inside) <= set(found.values())  # two such names are no two classes
    if of_splits and "train" not in given and (not given or found["train"]):
        flat = " and ".join(sorted(name for name in inside if root / name not in given.values()))
        raise UserError(f"data.root={shown(root)}: there are no class folders in {flat}; {WANTED}. {OTHER_WAYS}")
    if "train" not in given and (not given or len(given) < len(inside)):
        return Layout({"train": root})
    layout = Layout(given)
    for name in inside:
        if root / name not in given.values():
            split_name = name if name in found.values() else None
            if split_name:
                count = sum(is_image(entry.name) for entry in entries(root / name))
                said = f"{split_name} with {count:,} images, but no class folders"
                layout.left_out[said, said] += 1
            else:
                layout.left_out["folder next to train", "folders next to train"] += 1
    return layout


def _unwrapped(root: Path) -> Path:
    """The root, or the only folder in it, as where an archive was unpacked."""
    while True:
        try:
            inside = [entry for entry in entries(root) if not hidden(entry.name)]
        except UserError:
            if root.is_dir():
                raise
            what = "is a file; unpack it, and give the folder" if root.exists() else "there is no such folder"
            raise UserError(f"data.root={shown(root)}: {what}; {WANTED}. {OTHER_WAYS}") from None
        folders = [entry for entry in inside if is_folder(entry)]
        images = [entry for entry in inside if is_image(entry.name) and entry not in folders]
        if images and not folders:
            raise UserError(
                f"data.root={shown(root)}: its {len(images):,} images lie in no class folder; {WANTED}. {OTHER_WAYS}"
            )
        if not folders:
            archive = next((entry.name for entry in inside if ending_of(entry.name) in ARCHIVES), None)
            there = f"there is no class folder in it{f'; unpack {archive} first' if archive else ''}"
            raise UserError(f"data.root={shown(root)}: {there}; {WANTED}. {OTHER_WAYS}")
        names = [name for of in NAMES.values() for name in of]
        if len(folders) > 1 or folders[0].name.lower() in names or folders[0].is_symlink():
            return root
        inner = Path(folders[0].path)
        if not _has_folders(inner):
            return root
        root = inner


def _named(root: Path, split: str, names: list[str]) -> str | None:
    """The folder of a split, if there is one."""
    given = sorted(name for name in names if name.lower() in NAMES[split])
    if len(given) > 1:
        raise UserError(f"data.root={shown(root)}: has both {given[0]} and {given[1]}; keep one of them as {split}")
    return given[0] if given else None


def _has_folders(folder: Path) -> bool:
    return any(is_folder(entry) for entry in entries(folder) if not hidden(entry.name))


def shown(root: Path) -> Path:
    """The root as a person would write it."""
    return Path(os.path.relpath(root)) if root.is_relative_to(Path.cwd()) else root


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder. Raises UserError if the folder cannot be read."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); mend or remove it") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def hidden(name: str) -> bool:
    """Whether the system hides files of this name; __MACOSX is what a Mac adds to an archive."""
    return name.startswith(".") or name == "__MACOSX"


def ending_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a Path for each of many files would take seconds


def is_image(name: str) -> bool:
    return ending_of(name) in READABLE


def one_form(name: str) -> str:
    """The NFC form of a name: some systems store é as one character (NFC), some as two (NFD)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
