"""`make test` needs no Java or Maven, so it skips this folder. HOSO_TEST_KAFKA includes it."""

import os

collect_ignore_glob = [] if os.environ.get("HOSO_TEST_KAFKA") else ["test_*.py"]
