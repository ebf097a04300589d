"""idlookup: asks the population registry, patiently, and never twice for one person."""

from shared.service import build, run

from . import api, handlers
from .settings import IdlookupSettings

if __name__ == "__main__":
    run(
        build(
            IdlookupSettings(service="idlookup"),
            routers=api.routers,
            listening=handlers.listening,
            background=api.BACKGROUND,
            refreshers=api.REFRESHERS,
        )
    )
