"""Extract `passengers.csv` from the Titanic table that scikit-learn installs.

scikit-learn's own tests carry OpenML data set 40945 as a gzipped ARFF file. It is complete: its MD5 is the one OpenML
publishes, and this script rejects any other file. It keeps the columns that the ensemble uses, under their usual names
and in the file's order of rows. Its output is the same bytes every time.

    python examples/titanic/prepare.py
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from passengers import FIELDS, TABLE, TARGET
from sklearn.externals import _arff as arff  # liac-arff; scipy's reader rejects text columns

FOLDER = "tests/data/openml/id_40945"


def read_openml() -> list[dict[str, Any]]:
    """Read the installed ARFF file: one mapping for each passenger, with None where the file has `?`.

    Raises:
        SystemExit: the file is not the one OpenML publishes.
    """
    folder = files("sklearn.datasets").joinpath(FOLDER)
    description = json.loads(gzip.decompress(folder.joinpath("api-v1-jd-40945.json.gz").read_bytes()))
    text = gzip.decompress(folder.joinpath("data-v1-dl-16826755.arff.gz").read_bytes())
    published = description["data_set_description"]["md5_checksum"]
    if hashlib.md5(text, usedforsecurity=False).hexdigest() != published:
        raise SystemExit(f"the installed ARFF file is not the published one, whose MD5 is {published}")
    table = arff.loads(text.decode())
    names = [name for name, _ in table["attributes"]]
    return [dict(zip(names, row, strict=True)) for row in table["data"]]


def write_csv(passengers: list[dict[str, Any]]) -> str:
    """Return the columns in use as CSV; missing values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = (TARGET, *FIELDS)
    writer.writerow(columns)
    writer.writerows([_cell(passenger, column) for column in columns] for passenger in passengers)
    return text.getvalue()


def _cell(passenger: Mapping[str, Any], column: str) -> str:
    value = passenger[column.lower()]
    if value is None:
        return ""
    # The reader makes every number a float; ages, counts and classes are whole for nearly all passengers.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=TABLE, help="where to write (default: beside this script)")
    output: Path = parser.parse_args().output
    passengers = read_openml()
    output.write_text(write_csv(passengers), encoding="utf-8", newline="")
    print(f"{len(passengers):,} passengers written to {output}")


if __name__ == "__main__":
    main()
