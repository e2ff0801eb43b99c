"""Draws the picture of the README: runs `remora demo --once` in a terminal of its own and writes what it showed as SVG.

Run by: python -m demo.picture > demo/demo.svg
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from html import escape
from typing import Final

_COLUMNS: Final = 100
_ADVANCE, _LINE, _SIZE, _MARGIN = 8.4, 17, 14, 18
_BACKGROUND, _TEXT = "#0d1117", "#d1d7e0"
_STYLES: Final = {
    "1": 'font-weight="700" fill="#f0f6fc"',
    "2": 'fill="#8b949e"',
    "31": 'fill="#ff7b72"',
    "32": 'fill="#56d364"',
    "33": 'fill="#e3b341"',
    "36": 'fill="#79c0ff"',
}
_UNTIL: Final = "Where it all is"
_WORDS: Final = re.compile(r"\S+(?: \S+)*")
"""Text without leading or double spaces, which renderers take the liberty to drop."""
_ESCAPE: Final = re.compile(r"\x1b\[([0-9;]*)m")


def record(command: list[str]) -> str:
    """Run a command in a terminal of 100 columns; return what it wrote, escape codes included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, _COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command, stdout=theirs, env=environment) as child:  # noqa: S603 our own command
        os.close(theirs)
        data = b""
        try:
            while block := os.read(ours, 65_536):
                data += block
        except OSError:
            pass  # Linux says EIO when the other side is closed
    os.close(ours)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return data.decode().replace("\r\n", "\n")


def spans(line: str) -> Iterator[tuple[int, str, str]]:
    """Split a line with escape codes into (column, style, text).

    >>> list(spans("a\\x1b[1mbc\\x1b[0m"))
    [(0, '', 'a'), (1, 'font-weight="700" fill="#f0f6fc"', 'bc')]
    """
    column, style = 0, ""
    for number, part in enumerate(_ESCAPE.split(line)):
        if number % 2:
            # A later attribute of the same name would be an error in XML, so a colour replaces the colour of bold.
            known = {code: _STYLES[code] for code in part.split(";") if code in _STYLES}
            style = " ".join(known.values())
            if len(known) > 1:
                style = style.replace(' fill="#f0f6fc"', "", 1)
        elif part:
            yield column, style, part
            column += len(part)


def draw(screen: str) -> str:
    """Write what a terminal showed as SVG; every run of text keeps its columns whatever the reader's font."""
    lines = screen.partition(f"\x1b[1m{_UNTIL}")[0].rstrip().splitlines()
    width, height = _COLUMNS * _ADVANCE + 2 * _MARGIN, len(lines) * _LINE + 2 * _MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">',
        "<title>What `remora demo` shows</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>',
        f'<g font-family="ui-monospace,Menlo,Consolas,\'DejaVu Sans Mono\',monospace" font-size="{_SIZE}"'
        f' fill="{_TEXT}">',
    ]
    for number, line in enumerate(lines, start=1):
        for column, style, text in spans(line):
            for words in _WORDS.finditer(text):
                x, length = _MARGIN + (column + words.start()) * _ADVANCE, len(words[0]) * _ADVANCE
                place = f'x="{x:.1f}" y="{_MARGIN + number * _LINE - 4}" textLength="{length:.1f}"'
                out.append(f"<text {place} {style}>{escape(words[0], quote=False)}</text>".replace(" >", ">"))
    return "\n".join([*out, "</g>", "</svg>", ""])


if __name__ == "__main__":
    sys.stdout.write(draw(record([sys.executable, "-m", "remora", "demo", "--once"])))
