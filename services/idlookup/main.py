"""idlookup: asks the population registry, patiently, and never twice for one person."""

from shared.service import build, run

from . import desk
from .settings import IdlookupSettings

if __name__ == "__main__":
    run(
        build(
            IdlookupSettings(service="idlookup"),
            routers=desk.routers,
            listening=desk.listening,
            background=desk.BACKGROUND,
            refreshers=desk.REFRESHERS,
        )
    )
