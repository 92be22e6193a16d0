"""What can go wrong with the local stack itself; a function's failure is an answer, not an error of the stack.

LocalStackError
├── TemplateRefused     template.yaml cannot be expanded, translated or created
├── StateLocked         another command keeps the state for too long
├── StackRuns           another process keeps a stack of this state up
├── StateUnreadable     the database is damaged, or of a newer version of this package
├── StateUnwritable     the folder or the disk of the state takes no writes
└── PortTaken           the port asked for is not free
"""

from __future__ import annotations

from stepensemble.core.errors import LocalStackError


class TemplateRefused(LocalStackError):
    """The template cannot be expanded, translated or created."""


class StateLocked(LocalStackError):
    """Another command keeps the state for longer than this one waits."""


class StackRuns(LocalStackError):
    """Another process keeps a stack of this state up, or has just started one."""


class StateUnreadable(LocalStackError):
    """The state's database is damaged, or written by a newer version of this package."""


class StateUnwritable(LocalStackError):
    """The folder or the disk of the state takes no writes: no space is left, or this user may not."""


class PortTaken(LocalStackError):
    """The port asked for is not free."""
