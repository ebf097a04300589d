"""Fetches Apache Kafka's jars once, with Maven, into a folder outside the repository."""

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
MIN_JAVA = 17


class KafkaUnavailable(RuntimeError):
    """Kafka cannot be fetched or started here. The message gives the reason and the fix in Vietnamese and English."""


def find_java() -> str:
    """Return the path of Java 17 or newer: `$JAVA_HOME/bin/java`, otherwise `java` on the PATH.

    Raises KafkaUnavailable when there is none or it is too old.
    """
    home = os.environ.get("JAVA_HOME", "")
    java = shutil.which(str(Path(home) / "bin" / "java")) if home else None
    java = java or shutil.which("java")
    wanted = f"Java {MIN_JAVA}"
    if java is None:
        raise KafkaUnavailable(
            f"Không tìm thấy Java: Apache Kafka cần {wanted} trở lên (ví dụ: apt install openjdk-17-jre-headless). / "
            f"Java not found: Apache Kafka needs {wanted} or newer (for example: apt install openjdk-17-jre-headless)."
        )
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)', done.stderr + done.stdout)
    if match is None or int(match.group(1)) < MIN_JAVA:
        version = match.group(1) if match else "?"
        raise KafkaUnavailable(
            f"Java đang có ({java}) là bản {version}, nhưng Apache Kafka cần {wanted} trở lên. / "
            f"The Java found ({java}) is version {version}, but Apache Kafka needs {wanted} or newer."
        )
    return java


def find_maven() -> str:
    """Return the path of `mvn`. Raises KafkaUnavailable when it is not on the PATH."""
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(
            "Không tìm thấy Maven (mvn), công cụ dùng để tải Apache Kafka (ví dụ: apt install maven). / "
            "Maven (mvn), which fetches Apache Kafka, was not found (for example: apt install maven)."
        )
    return maven


def fetch_jars(directory: Path | None = None) -> Path:
    """Return the folder of Kafka's jars; fetches them first when those of `pom.xml` are missing.

    `directory` defaults to `.hoso-kafka` in the project. Several processes may call this at once: one fetches,
    the others wait. An interrupted fetch leaves nothing that looks complete.
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
            fetched = Path(scratch) / "jars"
            command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
            command += ["-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scratch)
            if done.returncode != 0 or not list(fetched.glob("kafka_2.13-*.jar")):
                last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
                raise KafkaUnavailable(
                    "Maven không tải được Apache Kafka; kiểm tra mạng hoặc kho gói (settings.xml). / "
                    f"Maven could not fetch Apache Kafka; check the network or the repository (settings.xml).\n{last}"
                )
            fetched.rename(jars)
    return jars
