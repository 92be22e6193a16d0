"""Cannot be imported."""

import there_is_no_such_module  # noqa: F401


def handler(_event: object, _context: object) -> None:
    """Never reached."""
