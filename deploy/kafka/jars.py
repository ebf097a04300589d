"""Fetches Apache Kafka's jars once, by Maven, into a folder outside the repository."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
DEFAULT_DIRECTORY = HERE.parents[1] / ".hoso-kafka"
OLDEST_JAVA = 17


class KafkaUnavailable(RuntimeError):
    """Kafka cannot be had or started here; the message says why and what to do, in Vietnamese and English."""


def find_java() -> str:
    """Path of a Java 17 or newer: `$JAVA_HOME/bin/java`, else `java` on the PATH.

    Raises KafkaUnavailable when there is none or it is too old.
    """
    home = os.environ.get("JAVA_HOME", "")
    java = shutil.which(str(Path(home) / "bin" / "java")) if home else None
    java = java or shutil.which("java")
    wanted = f"Java {OLDEST_JAVA}"
    if java is None:
        raise KafkaUnavailable(
            f"Không tìm thấy Java: Apache Kafka cần {wanted} trở lên (ví dụ: apt install openjdk-17-jre-headless). / "
            f"Java not found: Apache Kafka needs {wanted} or newer (for example: apt install openjdk-17-jre-headless)."
        )
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', said.stderr + said.stdout)
    if found is None or int(found.group(1)) < OLDEST_JAVA:
        version = found.group(1) if found else "?"
        raise KafkaUnavailable(
            f"Java đang có ({java}) là bản {version}, nhưng Apache Kafka cần {wanted} trở lên. / "
            f"The Java found ({java}) is version {version}, but Apache Kafka needs {wanted} or newer."
        )
    return java


def find_maven() -> str:
    """Path of `mvn` on the PATH. Raises KafkaUnavailable when there is none."""
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(
            "Không tìm thấy Maven (mvn), công cụ dùng để tải Apache Kafka (ví dụ: apt install maven). / "
            "Maven (mvn), which fetches Apache Kafka, was not found (for example: apt install maven)."
        )
    return maven


def fetch_jars(directory: Path | None = None) -> Path:
    """The folder that holds Kafka's jars, fetched there first when it does not have those of `pom.xml` yet.

    `directory` defaults to `.hoso-kafka` in the project. Several processes may call this at once: one fetches,
    the others wait. A fetch that breaks off leaves nothing that could be mistaken for a complete one.
    Raises KafkaUnavailable when Maven is missing or cannot resolve them.
    """
    directory = (directory or DEFAULT_DIRECTORY).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    jars = directory / f"jars-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    with (directory / "jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.is_dir():
            return jars
        maven = find_maven()
        with tempfile.TemporaryDirectory(dir=directory, prefix="fetching-") as scratch:
            got = Path(scratch) / "jars"
            command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
            command += ["-DincludeScope=runtime", f"-DoutputDirectory={got}"]
            said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scratch)
            if said.returncode != 0 or not list(got.glob("kafka_2.13-*.jar")):
                last = "\n".join((said.stdout + said.stderr).strip().splitlines()[-15:])
                raise KafkaUnavailable(
                    "Maven không tải được Apache Kafka; kiểm tra mạng hoặc kho gói (settings.xml). / "
                    f"Maven could not fetch Apache Kafka; check the network or the repository (settings.xml).\n{last}"
                )
            got.rename(jars)
    return jars
