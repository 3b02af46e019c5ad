"""PostgreSQL and MySQL servers that run during a test. A test without its server is skipped with a reason."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TIMEOUT = 60.0


def program(name: str, *places: str) -> str:
    """Return the path of a program; skip the test if it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def unprivileged(name: str, folder: Path) -> dict[str, int]:
    """Return the user and group that start a server, since servers refuse to run as root."""
    if os.getuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"there is no user {name} to run the server as")
    for place in (folder, *folder.parents):
        if place == Path("/tmp") or place.owner() != "root":
            break
        place.chmod(place.stat().st_mode | 0o011)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid}


def wait_for(ready: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers."""
    limit = time.monotonic() + TIMEOUT
    while not ready():
        if server.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


@contextlib.contextmanager
def running(command: list[str], folder: Path, user: dict[str, int], ready: Callable[[], bool]) -> Iterator[None]:
    """Run a server until the end of the block."""
    log = folder / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=folder, **user)  # type: ignore[call-overload]
    try:
        wait_for(ready, server, log)
        yield
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """Start PostgreSQL; yield the URL of an empty database."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra 'postgresql')")
    places = [str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    initdb, postgres = program("initdb", *places), program("postgres", *places)
    psql, port = program("pg_isready", *places), free_port()
    user, data = unprivileged("postgres", folder), folder / "data"
    made = [initdb, "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **user)  # type: ignore[call-overload]
    command = [postgres, "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"]

    def ready() -> bool:
        return subprocess.run([psql, "-h", "127.0.0.1", "-p", str(port)], capture_output=True).returncode == 0

    with running(command, folder, user, ready):
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def mysql_server(folder: Path) -> Iterator[str]:
    """Start MySQL or MariaDB; yield the URL of an empty database."""
    pymysql = pytest.importorskip("pymysql", reason="pymysql is not installed (extra 'mysql')")
    install, server = program("mysql_install_db"), program("mariadbd")
    user, data, port = unprivileged("mysql", folder), folder / "data", free_port()
    made = [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **user)  # type: ignore[call-overload]
    command = [server, "--no-defaults", f"--datadir={data}", f"--port={port}", f"--socket={folder}/socket"]
    command += ["--bind-address=127.0.0.1", f"--pid-file={folder}/pid", "--innodb-flush-log-at-trx-commit=0"]

    def ready() -> bool:
        try:
            with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
                connection.cursor().execute("CREATE DATABASE IF NOT EXISTS studies")
            return True
        except pymysql.err.OperationalError:
            return False

    with running(command, folder, user, ready):
        yield f"mysql+pymysql://root@127.0.0.1:{port}/studies"
