"""idlookup: asks the population registry for numbers and checks, and never twice for one request."""

from services.idlookup.api import create_app
from services.idlookup.app import IdlookupApp
from services.idlookup.settings import IdlookupSettings
from shared.service import run

if __name__ == "__main__":
    run(create_app(IdlookupApp(IdlookupSettings(service="idlookup"))))
