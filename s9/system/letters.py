"""Text of unknown origin, such as names of files and classes, made fit for a terminal."""

from rich.text import Text


def one_line(text: str) -> str:
    r"""In one line that steers no terminal: a line feed as \n."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def as_text(text: str, encoding: str) -> Text:
    """Not markup: `[red]` stays as it is; letters that the screen's encoding lacks are spelled out."""
    return Text(text.encode(encoding, "backslashreplace").decode(encoding))
