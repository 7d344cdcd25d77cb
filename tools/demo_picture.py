"""``make pictures``: writes docs/images/demo.svg from a real run of ``make demo``.

The picture has the last state of the terminal, and loads no font or script from elsewhere.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "demo.svg"
WIDTH = 100

_TOKENS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\n|\r|[^\x1b\n\r]+")
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def last_state(output: str) -> str:
    """Return the lines of a terminal at the end, with their colours."""
    lines, row = [""], 0
    for part in _TOKENS.findall(output):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b[") and part[-1] == "A":
            row = max(0, row - int(part[2:-1] or 1))
        elif part.startswith("\x1b[") and part[-1] == "K":
            lines[row] = ""
        elif part != "\r" and (not part.startswith("\x1b[") or part[-1] == "m"):
            lines[row] += part
    return "\n".join(line for line in lines if line.strip())


def picture(output: str) -> str:
    """Return the SVG of a terminal with this output."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text("$ make demo", style="bold"))
        console.print(Text.from_ansi(last_state(output)))
    return _FONT.sub("", console.export_svg(title="streaming-exporter"))


def main() -> None:
    """Run the demo and write the picture."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    with tempfile.TemporaryDirectory() as folder:  # with older files the names get numbers
        done = subprocess.run(
            [sys.executable, "-m", "dev", "demo"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )
    PICTURE.write_text(picture(done.stdout.decode()), "utf-8")


if __name__ == "__main__":
    main()
