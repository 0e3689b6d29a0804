#!/usr/bin/env python3
"""Records the 60-second start of README.md as docs/start.svg.

Runs the real commands, one after the other, in a terminal and a new folder, and draws the screen. The recording is the
same on every machine, apart from times and digests, and contains no paths.

    pip install pyte
    cargo build --release
    docs/record-start.py target/release/flotilla
"""

import fcntl
import html
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios

import pyte

COMMANDS = [
    "flotilla init my-fleet",
    "cd my-fleet",
    "flotilla deploy --local",
    "echo 'vars: { LANGUAGE: de }' >> customers/acme.yaml",
    "flotilla plan --local",
    "flotilla deploy --local",
    "flotilla rollback acme --local --yes",
]
COLUMNS, LINES = 104, 500
CHARACTER, LINE, MARGIN, BAR = 8.4, 19, 16, 34
BACKGROUND, FOREGROUND, PROMPT = "#16181d", "#d6d9e0", "#7d8590"
COLOURS = {
    "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "yellow": "#e3b341", "blue": "#79c0ff",
    "magenta": "#d2a8ff", "cyan": "#76e3ea", "black": "#7d8590",
}


def run(command: str, folder: str, environment: dict[str, str]) -> list[list[tuple[str, str, bool]]]:
    """Returns the lines that a command leaves on a terminal, each as runs of text with a colour and a weight."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    child = subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        stream.feed(data)
    os.close(master)
    if child.wait() != 0:
        sys.exit("\n".join([f"`{command}` failed with {child.returncode}:", *(line.rstrip() for line in screen.display if line.strip())]))
    lines = []
    for row in range(LINES):
        runs: list[tuple[str, str, bool]] = []
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            style = (COLOURS.get(cell.fg, FOREGROUND), cell.bold)
            if runs and runs[-1][1:] == style:
                runs[-1] = (runs[-1][0] + cell.data, *style)
            else:
                runs.append((cell.data, *style))
        lines.append(runs)
    while lines and not "".join(text for text, _, _ in lines[-1]).strip():
        lines.pop()
    return lines


def record(flotilla: str) -> list[list[tuple[str, str, bool]]]:
    """Returns the lines of the whole session."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": os.path.dirname(flotilla) + os.pathsep + os.environ["PATH"],
            "HOME": folder, "TERM": "xterm-256color", "LANG": "C.UTF-8",
        }
        # Once before, so that the packages that npm installs are not part of the recording.
        warm = os.path.join(folder, "warm")
        os.mkdir(warm)
        run("flotilla init fleet && cd fleet && flotilla build", warm, environment)
        project = folder
        for command in COMMANDS:
            lines.append([("$ ", PROMPT, False), (command, FOREGROUND, True)])
            if command.startswith("cd "):
                project = os.path.join(project, command.removeprefix("cd "))
                continue
            lines += run(command, project, environment)
            if command.startswith("flotilla "):
                lines.append([])
        # The folder is a random one, and shown by `init` only.
        for line in lines:
            line[:] = [(text.replace(folder, "~"), colour, bold) for text, colour, bold in line]
    return lines[:-1]


def draw(lines: list[list[tuple[str, str, bool]]]) -> str:
    """Returns the session as an SVG."""
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, BAR + len(lines) * LINE + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        'role="img" aria-label="A terminal session: create a fleet, deploy it, change a customer, plan, deploy and roll back">',
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
    ]
    parts += [
        f'<circle cx="{MARGIN + 6 + index * 18}" cy="18" r="5.5" fill="{colour}"/>'
        for index, colour in enumerate(["#ff5f57", "#febc2e", "#28c840"])
    ]
    parts.append(
        f'<g font-family="Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14" fill="{FOREGROUND}" xml:space="preserve">'
    )
    for index, line in enumerate(lines):
        spans = "".join(span(text, colour, bold) for text, colour, bold in stripped(line))
        if spans:
            parts.append(f'<text x="{MARGIN}" y="{BAR + (index + 1) * LINE - 5}">{spans}</text>')
    parts += ["</g>", "</svg>", ""]
    return "\n".join(parts)


def span(text: str, colour: str, bold: bool) -> str:
    """Returns text with its style."""
    weight = ' font-weight="600"' if bold else ""
    text = html.escape(text, quote=False)
    return text if (colour, bold) == (FOREGROUND, False) else f'<tspan fill="{colour}"{weight}>{text}</tspan>'


def stripped(line: list[tuple[str, str, bool]]) -> list[tuple[str, str, bool]]:
    """Returns a line without the space at its end."""
    line = list(line)
    while line and not line[-1][0].rstrip():
        line.pop()
    if line:
        text, colour, bold = line[-1]
        line[-1] = (text.rstrip(), colour, bold)
    return line


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    svg = draw(record(os.path.abspath(sys.argv[1])))
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.svg"), "w", encoding="utf-8") as file:
        file.write(svg)
