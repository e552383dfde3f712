"""What the routes of one server share; ``request.app.state.services`` has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request

if TYPE_CHECKING:
    from ownchat.serve.admission import Admission
    from ownchat.serve.catalogue import Catalogue
    from ownchat.serve.conduct import Conducts
    from ownchat.serve.database import Database
    from ownchat.serve.keys import Keys
    from ownchat.serve.metrics import Metrics
    from ownchat.serve.pool import Pool
    from ownchat.serve.records import Records
    from ownchat.serve.settings import Settings


@dataclass(frozen=True)
class Services:
    """The parts of a gateway, made once by :func:`ownchat.serve.app.create_app`."""

    settings: Settings
    database: Database
    keys: Keys
    admission: Admission
    catalogue: Catalogue
    pool: Pool
    metrics: Metrics
    records: Records
    conducts: Conducts


def of(request: Request) -> Services:
    """The services of the server that a request came to."""
    services: Services = request.app.state.services
    return services
