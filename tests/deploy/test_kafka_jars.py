"""The messages when Java or Maven is missing or too old. The tests need neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.kafka.jars import POM, KafkaUnavailable, fetch_jars, find_java


@pytest.fixture
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH with one empty folder. Returns the folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def install(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_missing_java_is_reported_in_both_languages(empty_machine: Path) -> None:
    with pytest.raises(KafkaUnavailable, match=r"Không tìm thấy Java: .* / Java not found: .*17"):
        find_java()


def test_an_old_java_is_reported_with_its_version(empty_machine: Path) -> None:
    install(empty_machine, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(KafkaUnavailable, match=r"là bản 11, .* / .* is version 11, "):
        find_java()


def test_java_home_comes_before_the_path(empty_machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(empty_machine, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    (tmp_path / "jdk" / "bin").mkdir(parents=True)
    install(tmp_path / "jdk" / "bin", "java", "echo 'openjdk version \"21\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert find_java() == str(tmp_path / "jdk" / "bin" / "java")


def test_a_missing_maven_is_reported_in_both_languages(empty_machine: Path, tmp_path: Path) -> None:
    with pytest.raises(KafkaUnavailable, match=r"Không tìm thấy Maven .* / Maven .* was not found"):
        fetch_jars(tmp_path / "jars")


def test_a_failed_fetch_leaves_nothing_that_looks_complete(empty_machine: Path, tmp_path: Path) -> None:
    install(empty_machine, "mvn", "echo 'could not transfer artifact'; exit 1")
    for _ in range(2):
        with pytest.raises(KafkaUnavailable, match=r"không tải được(?s:.*)could not transfer artifact"):
            fetch_jars(tmp_path / "jars")
    assert sorted(path.name for path in (tmp_path / "jars").iterdir()) == ["jars.lock"]


def test_kafka_is_version_4() -> None:
    assert "<artifactId>kafka_2.13</artifactId>\n      <version>4." in POM.read_text()
