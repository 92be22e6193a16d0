"""Write images of three digits to the events: of each digit the first one that is held out.

python examples/digits/prepare.py                # events/digit-*.png
python examples/digits/prepare.py --output DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from digits import read_digits, split

EVENTS = Path(__file__).parents[2] / "events"
SHOWN = (3, 5, 7)
"""The members do not all agree on the 5."""


def main() -> None:
    """Write the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=EVENTS, help="folder for the files")
    folder = parser.parse_args().output
    _, held_out = split(read_digits())
    for number in SHOWN:
        path = folder / f"digit-{number}.png"
        path.write_bytes(held_out.images[held_out.numbers.tolist().index(number)])
        print(path)


if __name__ == "__main__":
    main()
