"""idlookup: asks the population registry, patiently, and never twice for one person."""

from services.idlookup import app
from services.idlookup.settings import IdlookupSettings
from shared.service import build, run

if __name__ == "__main__":
    run(
        build(
            IdlookupSettings(service="idlookup"),
            routers=app.routers,
            listening=app.listening,
            background=app.BACKGROUND,
            refreshers=app.REFRESHERS,
        )
    )
