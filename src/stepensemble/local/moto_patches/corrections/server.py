"""Corrections of moto's WSGI application."""

from __future__ import annotations

from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from stepensemble.local.moto_patches.patch import MotoPatch, PatchKind


def _close_own_routes() -> None:
    applications: Any = DomainDispatcherApplication
    create = applications.__init__

    def create_closed(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        self.app_instances |= dict.fromkeys(("moto_api", "instance_metadata"), _respond_not_found)

    applications.__init__ = create_closed


def _respond_not_found(_environ: Any, start_response: Any) -> list[bytes]:
    """Respond with 404; a WSGI application."""
    start_response("404 Not Found", [("Content-Type", "application/json")])
    return [b'{"message": "Not Found"}']


PATCHES = (
    MotoPatch(
        "own-routes",
        PatchKind.CORRECTION,
        ("moto.moto_server.werkzeug_app:DomainDispatcherApplication.__init__",),
        "moto has routes that AWS does not have: one removes every resource, others show them, or return credentials "
        "as an EC2 instance does. With the patch they respond with 404.",
        "https://docs.aws.amazon.com/general/latest/gr/aws-service-information.html",
        _close_own_routes,
    ),
)
