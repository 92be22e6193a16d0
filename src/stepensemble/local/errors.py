"""Errors of the local stack itself. A function's failure is a response of the function, not an error of the stack.

LocalStackError
├── TemplateRefused     template.yaml cannot be expanded, translated or created
├── PatchMismatch       a patch does not fit the installed version of moto
├── StateLocked         another command keeps the state for too long
├── StackRuns           another process keeps a stack of this state up
├── StateUnreadable     the database is damaged, or of a newer version of this package
├── StateUnwritable     the folder or the disk of the state takes no writes
└── PortTaken           the requested port is not free
"""

from __future__ import annotations

from stepensemble.core.errors import LocalStackError


class TemplateRefused(LocalStackError):
    """The template cannot be expanded, translated or created."""


class PatchMismatch(LocalStackError):
    """A patch replaces something that the installed version of moto, or of one of its dependencies, does not have."""


class StateLocked(LocalStackError):
    """Another command keeps the state for longer than this one waits."""


class StackRuns(LocalStackError):
    """Another process keeps a stack of this state up, or has just started one."""


class StateUnreadable(LocalStackError):
    """The state's database is damaged, or was written by a newer version of this package."""


class StateUnwritable(LocalStackError):
    """The folder or the disk of the state takes no writes: no space is left, or permission is denied."""


class PortTaken(LocalStackError):
    """The requested port is not free."""
