"""Whose hand it was: an officer's name comes through whole, however the caller wrote it into the header."""

from __future__ import annotations

import pytest

from shared.http.access import officer_of

NAME = "Nguyễn Thị Ánh Đào"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("lan", "lan"),
        (NAME.encode().decode("latin-1"), NAME),
        ("UTF-8''Nguy%E1%BB%85n%20Th%E1%BB%8B%20%C3%81nh%20%C4%90%C3%A0o", NAME),
        ("utf-8''Lan%00%0A", "Lan"),
        ("utf-8''%ff", "\ufffd"),
        ("Jos\xe9", "José"),
        ("", ""),
        (" lan ", "lan"),
    ],
)
def test_an_officers_name_is_read_as_utf8_or_percent_encoded(header: str, name: str) -> None:
    assert officer_of(header) == name


def test_a_long_name_is_cut_between_letters() -> None:
    assert officer_of(("ễ" * 100).encode().decode("latin-1")) == "ễ" * 80
