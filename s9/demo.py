"""Opens a local page where a trained network looks at a dropped picture.   python -m s9.demo run=frontier"""

from s9.cli.door import key_values, open_door, refuse_unknown
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts, leave

USAGE = """python -m s9.demo run=<shipped name|folder of a run|file of weights> [port=7860] [open=false|true]

Prints the address of a page in which a picture can be dropped, pasted or chosen: the five most probable classes, where
the network looked (Grad-CAM), and the pixels that it saw. Only programs on this machine can reach the page; the page
asks nothing of another machine, and no picture is kept.
port=0: any free port. open=true: also opens the page in the browser. Ctrl-C ends it.
Exit code 2: the network or the port cannot be had; 128 + n: ended by signal n."""

PARTS = ("starlette", "uvicorn")  # of the extra s9[demo]
LAST_PORT = 65535


def main(arguments: list[str]) -> None:
    given = key_values(arguments, {"run": None, "port": "7860", "open": "false"}, USAGE)
    refuse_unknown(given, {"open": ("false", "true")})
    port = int(given["port"]) if given["port"].isdecimal() else -1
    if not 0 <= port <= LAST_PORT:
        raise UserError(f"port={given['port']}: must be a whole number from 0 (any free port) to {LAST_PORT}")

    try:
        from s9.inference.demo_server import serve
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in PARTS:
            raise
        raise UserError(f"s9.demo needs {missing}, which is not installed: pip install 's9[demo]'") from None

    try:
        with Interrupts(end=leave):
            serve(given["run"], port, open_browser=given["open"] == "true")
    except Interrupted as stop:
        leave(128 + stop.number)


if __name__ == "__main__":
    open_door(main, USAGE)
