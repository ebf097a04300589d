"""`make test` has neither Java nor Maven and does not look here; with HOSO_TEST_KAFKA set nothing is left out."""

import os

collect_ignore_glob = [] if os.environ.get("HOSO_TEST_KAFKA") else ["test_*.py"]
