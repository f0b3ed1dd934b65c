"""Finds the images of a user's folder, by split and class, and counts the other files by kind."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from s9.data.sources.formats import READABLE, UNREADABLE
from s9.data.sources.layout import WANTED, ending_of, entries, hidden, is_folder, layout_of, one_form, shown
from s9.system.errors import UserError

KINDS = 8  # kinds of left-out files that are listed by name


class File(NamedTuple):
    """name: the path below the split's folder, in Unicode's NFC form, with / between its parts."""

    path: str
    name: str
    label: int
    size: int  # bytes
    modified: int  # nanoseconds


@dataclass
class FolderFiles:
    """The images of each split that the folder has, sorted by class and name. folders: of the splits."""

    class_names: tuple[str, ...]
    splits: dict[str, list[File]]
    folders: dict[str, Path]
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind, as (singular, plural)

    def said(self) -> str:
        """What was left out, in one line; empty if nothing was."""
        kinds = self.left_out.most_common()
        parts = [f"{count:,} {one if count == 1 else several}" for (one, several), count in kinds[:KINDS]]
        if others := sum(count for _, count in kinds[KINDS:]):
            parts.append(f"{others:,} others")
        return f"left out: {', '.join(parts)}" if parts else ""


def folder_files(root: Path, *, drop_gone: bool = False, to_train: bool = True) -> FolderFiles:
    """The images below the absolute path `root`: see `layout_of`.

    Args:
        drop_gone: a link to a file that is gone is left out; else it is refused.
        to_train: there must be a train, and two classes; to be scored, one class of any split is enough.

    Raises:
        UserError: names the folder or file that is missing, empty, cannot be read or is of a class that a split lacks.
    """
    layout = layout_of(root)
    first, *others = layout.folders
    if to_train and first != "train":
        raise UserError(f"data.root={shown(root)}: has {layout.folders[first].name}, but no train; {WANTED}")
    scan = _Scan(layout.left_out, drop_gone)
    classes = {split: scan.classes(folder) for split, folder in layout.folders.items()}
    if to_train and len(classes[first]) < 2:
        raise UserError(
            f"{shown(layout.folders[first])}: needs at least two class folders, has {len(classes[first])}; {WANTED}"
        )
    for split in others:
        for have, lack in ((first, split), (split, first)):
            if missing := sorted(classes[have].keys() - classes[lack].keys()):
                lacking = layout.folders[lack] / missing[0]
                raise UserError(f"{lacking}: no such class folder, yet {layout.folders[have]} has the class")
    names = tuple(sorted(classes[first]))
    splits = {
        s: [f for label, name in enumerate(names) for f in scan.images(of[name], label)] for s, of in classes.items()
    }
    return FolderFiles(names, splits, layout.folders, scan.left_out)


class _Scan:
    """Scans folders with os.scandir: pathlib takes ten times as long for 60,000 files."""

    def __init__(self, left_out: Counter[tuple[str, str]], drop_gone: bool):
        self.left_out, self.drop_gone = left_out, drop_gone

    def classes(self, split: Path) -> dict[str, list[os.DirEntry[str]]]:
        """The class folders by name; several folders if their names are Unicode forms of one name."""
        found: dict[str, list[os.DirEntry[str]]] = {}
        for entry in entries(split):
            if hidden(entry.name):
                self._leave_hidden(entry)
            elif not is_folder(entry):
                self.left_out["file outside a class folder", "files outside a class folder"] += 1
            elif self._may_enter(entry, (os.path.realpath(split),)):
                found.setdefault(one_form(entry.name), []).append(entry)
        return found

    def images(self, folders: list[os.DirEntry[str]], label: int) -> list[File]:
        """The images of one class, in the order of their names."""
        before, found = self.left_out.copy(), []
        for folder in folders:
            found += self._images(folder.path, f"{one_form(folder.name)}/", label, (os.path.realpath(folder.path),))
        if not found:
            here = FolderFiles((), {}, {}, self.left_out - before).said()
            wanted = "add images such as .jpg, .png, .webp or .tif files, or remove the folder"
            raise UserError(f"{folders[0].path}: the class is empty; {here + '; ' if here else ''}{wanted}")
        return sorted(found, key=lambda file: (file.name, file.path))

    def _images(self, folder: str, below: str, label: int, above: tuple[str, ...]) -> list[File]:
        """above: the real paths of the folders from the class's folder down to `folder`, both included."""
        found = []
        for entry in entries(folder):
            name = entry.name
            if hidden(name):
                self._leave_hidden(entry)
                continue
            ending = ending_of(name)
            if ending in READABLE:
                try:
                    state = entry.stat()
                except OSError as error:  # a link to a file that is gone
                    if self.drop_gone and isinstance(error, FileNotFoundError):
                        self.left_out["link to a file that is gone", "links to files that are gone"] += 1
                        continue
                    raise UserError(f"{entry.path}: cannot be read ({error.strerror}); mend or remove it") from None
                if stat.S_ISREG(state.st_mode):
                    name = one_form(f"{below}{name}")
                    found.append(File(entry.path, name, label, size=state.st_size, modified=state.st_mtime_ns))
                    continue
                if not stat.S_ISDIR(state.st_mode):  # reading a named pipe would wait for ever
                    raise UserError(f"{entry.path}: is not a file; remove it")
            if not is_folder(entry):
                self.left_out[_kind(ending)] += 1
            elif self._may_enter(entry, above):
                inside = (*above, os.path.realpath(entry.path))
                found += self._images(entry.path, f"{below}{name}/", label, inside)
        return found

    def _leave_hidden(self, entry: os.DirEntry[str]) -> None:
        what = "folder" if is_folder(entry) else "file"
        self.left_out[f"hidden {what}", f"hidden {what}s"] += 1

    def _may_enter(self, entry: os.DirEntry[str], above: tuple[str, ...]) -> bool:
        """False for a link to a folder that contains the link, since following it would never end."""
        if not entry.is_symlink():
            return True
        target = Path(os.path.realpath(entry.path))
        if not any(Path(folder).is_relative_to(target) for folder in above):
            return True
        self.left_out["link to a folder that holds it", "links to folders that hold them"] += 1
        return False


def _kind(ending: str) -> tuple[str, str]:
    if not ending[1:].isalnum() or len(ending) > 12:
        return "file without an ending (not an image)", "files without an ending (not images)"
    if ending in UNREADABLE:
        return (f"{ending} (cannot be read here)",) * 2
    return f"{ending} (not an image)", f"{ending} (not images)"
