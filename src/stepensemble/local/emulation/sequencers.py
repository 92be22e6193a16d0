"""Sequencers of S3's events. A module of its own, as the command line uses it without importing moto."""

from __future__ import annotations

import time
from itertools import count

SEQUENCE = count(time.time_ns())
"""Numbers that grow within this process, and from one process to the next."""
