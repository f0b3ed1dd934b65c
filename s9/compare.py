"""Compares runs: keys, scores, curves, which test images only one gets right.   python -m s9.compare outputs/..."""

from pathlib import Path

from s9.cli.door import open_door
from s9.system.errors import UserError

PAGE = "page="
USAGE = """python -m s9.compare outputs/<a> outputs/<b> [...] [page=outputs/compare/<a>-<b>.html]

Compares two or more runs, or shipped weights as s9/models/weights/frontier, from the files in their folders: the keys
that differ, the results, the curves, the test images that only one gets right, whether the difference is more than
chance (McNemar's exact test), and what makes the comparison unfair. Prints all but the curves and long lists; writes
one HTML file with everything."""


def main(arguments: list[str]) -> None:
    pages = [one.removeprefix(PAGE) for one in arguments if one.startswith(PAGE)]
    paths = [Path(one) for one in arguments if not one.startswith(PAGE)]
    if not paths:
        raise UserError(f"no run is given; {USAGE.splitlines()[0]}")
    if len(pages) > 1 or "" in pages:
        raise UserError(f"{PAGE}{pages[-1]}: give one file, as {PAGE}comparison.html")

    from rich.console import Console

    from s9.pages.compare_facts import compare, default_page
    from s9.pages.compare_page import write_comparison
    from s9.pages.compare_screen import show

    found, failed = compare(paths), None
    page = Path(pages[0]) if pages else default_page(paths)
    if page.is_dir():
        raise UserError(f"{PAGE}{page}: is a folder; give a file, as {PAGE}{page / 'comparison.html'}")
    try:
        write_comparison(found, page)  # first: whoever reads the screen may stop reading
    except OSError as error:
        failed = f"{PAGE}{page}: cannot be written ({error.strerror or error})"
    show(found, Console(highlight=False))
    if failed:
        raise UserError(failed)
    print(f"\npage: {page}")


if __name__ == "__main__":
    open_door(main, USAGE)
