"""Settings of hypothesis: many small examples, and no deadline on a busy machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", max_examples=40, deadline=None)
settings.load_profile("unit")
