"""Write docs/screenshots: a prediction in the terminal, and a batch's report.

    make screenshots

Both show the current output of the commands, on a local stack in a temporary folder. Chromium takes the screenshot
of the report.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "screenshots"
PROJECT = ("template.yaml", "template-tensorflow.yaml", "statemachine", "functions", "models", "events", "examples")
ENSEMBLE = Path(sys.executable).with_name("ensemble")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COLUMNS = 92
SIZE = (1000, 1180)
"""Width and height of the screenshot, in pixels."""

BATCH = ("batch", "examples/titanic/passengers.csv", "--label", "Survived", "--date", "2026-03-01")


def run(project: Path, *arguments: str) -> str:
    """Run a command of the project in colours, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environment |= {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color"}
    done = subprocess.run(  # noqa: S603 (the project's own command)
        [ENSEMBLE, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def draw_terminal(command: str, output: str) -> str:
    """Return a terminal with a command and its output, as SVG that loads no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}\n"))
    console.print(Text.from_ansi(output.rstrip()))
    svg = console.export_svg(title="stepensemble", theme=MONOKAI, unique_id="terminal")
    return re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL).replace("Fira Code, ", "")


def take_screenshot(page: Path, target: Path) -> None:
    """Write the upper part of a page as a small PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("there is no Chromium; make browser installs it")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(  # noqa: S603 (the browser found on the PATH)
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--blink-settings=preferredColorScheme=1", "--force-device-scale-factor=1"),
                *(f"--screenshot={shot}", f"--window-size={SIZE[0]},{SIZE[1]}", page.as_uri()),
            ],
            stderr=subprocess.DEVNULL,
            check=True,
        )
        with Image.open(shot) as image:
            image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        for part in PROJECT:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, project / part)
        output = run(project, "run", "events/passenger.json")
        (FOLDER / "terminal.svg").write_text(draw_terminal("make run", output), encoding="utf-8")
        run(project, *BATCH)
        (report,) = project.glob("results/**/report.html")
        take_screenshot(report, FOLDER / "report.png")


if __name__ == "__main__":
    main()
