"""Tests of notify: its rules, texts and channels alone, and the service against a mail server and a gateway."""
