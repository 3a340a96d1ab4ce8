"""The drivers that are measured, how each is told where the server is, and what its server understands."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import ssl
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, make_url


@dataclass(frozen=True)
class Driver:
    """An SQLAlchemy dialect and driver, under the name that the table uses.

    ``dialect`` is the URL's first part, ``modules`` what has to import for it, ``package`` the
    distributions that may carry it (for its version), ``server`` the kind of server it speaks to.
    """

    name: str
    dialect: str
    server: str
    modules: tuple[str, ...]
    package: tuple[str, ...]
    is_async: bool = False
    connect_args: tuple[tuple[str, Any], ...] = ()

    def missing(self) -> str | None:
        """Why this driver cannot be used here, or None when it can."""
        for module in self.modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                return f"{type(error).__name__}: {error}"
        return None

    def version(self) -> str | None:
        """The version of the distribution that is installed, or None."""
        for package in self.package:
            try:
                return importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None


DRIVERS: dict[str, Driver] = {
    driver.name: driver
    for driver in [
        Driver(
            "psycopg2", "postgresql+psycopg2", "postgresql", ("psycopg2",), ("psycopg2-binary", "psycopg2")
        ),
        Driver("psycopg", "postgresql+psycopg", "postgresql", ("psycopg",), ("psycopg",)),
        Driver("psycopg-async", "postgresql+psycopg_async", "postgresql", ("psycopg",), ("psycopg",), True),
        Driver("pg8000", "postgresql+pg8000", "postgresql", ("pg8000",), ("pg8000",)),
        Driver("asyncpg", "postgresql+asyncpg", "postgresql", ("asyncpg",), ("asyncpg",), True),
        Driver("pymysql", "mysql+pymysql", "mysql", ("pymysql",), ("pymysql",)),
        Driver("mysqldb", "mysql+mysqldb", "mysql", ("MySQLdb",), ("mysqlclient", "mysqlclient-static")),
        Driver(
            "mysqlconnector",
            "mysql+mysqlconnector",
            "mysql",
            ("mysql.connector",),
            ("mysql-connector-python",),
            connect_args=(("use_pure", True),),
        ),
        Driver(
            "mysqlconnector-c",
            "mysql+mysqlconnector",
            "mysql",
            ("mysql.connector", "_mysql_connector"),
            ("mysql-connector-python",),
            connect_args=(("use_pure", False),),
        ),
        Driver("mariadbconnector", "mariadb+mariadbconnector", "mysql", ("mariadb",), ("mariadb",)),
        Driver("asyncmy", "mysql+asyncmy", "mysql", ("asyncmy",), ("asyncmy",), True),
        Driver("aiomysql", "mysql+aiomysql", "mysql", ("aiomysql",), ("aiomysql",), True),
        Driver("sqlite", "sqlite+pysqlite", "sqlite", ("sqlite3",), ()),
        Driver("aiosqlite", "sqlite+aiosqlite", "sqlite", ("aiosqlite",), ("aiosqlite",), True),
    ]
}


def of_url(url: URL) -> Driver:
    """The driver that a URL names; one that is not in `DRIVERS` gets its dialect's own name."""
    dialect = url.get_dialect()
    full = f"{dialect.name}+{dialect.driver}"
    for driver in DRIVERS.values():
        if driver.dialect.split("+")[1] == dialect.driver and not driver.connect_args:
            return driver
    for driver in DRIVERS.values():
        if driver.dialect.split("+")[1] == dialect.driver:
            return Driver(driver.name, full, dialect.name, driver.modules, driver.package, driver.is_async)
    return Driver(dialect.driver, full, dialect.name, (), (dialect.driver,), bool(dialect.is_async))


def address(driver: Driver, server: str, tls_ca: str | None = None) -> tuple[str, dict[str, Any]]:
    """The URL and the (JSON-able) connect arguments for ``driver`` to reach ``server``, a `Server` URL.

    ``tls_ca`` is the file of the authority's certificate; with it the connection is encrypted.
    """
    url = make_url(server).set(drivername=driver.dialect)
    arguments: dict[str, Any] = dict(driver.connect_args)
    if driver.name == "pg8000" and "host" in url.query:  # its own spelling of a Unix socket
        port = url.query.get("port", "5432")
        arguments["unix_sock"] = f"{url.query['host']}/.s.PGSQL.{port}"
        url = url.set(query={})
    if driver.name in ("mysqlconnector", "mysqlconnector-c", "pymysql") and not tls_ca:
        arguments["ssl_disabled"] = True  # they encrypt unasked where the server can, on a Unix socket too
    if driver.name == "pg8000" and not tls_ca:
        arguments["ssl_context"] = (
            False  # else it reads all of the system's authorities, each time it connects
        )
    if tls_ca:
        arguments["tls_ca"] = tls_ca
    return url.render_as_string(hide_password=False), arguments


def connect_args(driver: Driver, arguments: dict[str, Any]) -> dict[str, Any]:
    """What ``create_engine(connect_args=...)`` gets: `address`'s arguments, TLS in the driver's own words."""
    arguments = dict(arguments)
    authority = arguments.pop("tls_ca", None)
    if authority is None:
        return arguments
    if driver.name in ("psycopg2", "psycopg", "psycopg-async"):
        return arguments | {"sslmode": "verify-full", "sslrootcert": authority}
    if driver.name == "pg8000":
        return arguments | {"ssl_context": ssl.create_default_context(cafile=authority)}
    if driver.name in ("asyncpg", "asyncmy", "aiomysql"):
        return arguments | {"ssl": ssl.create_default_context(cafile=authority)}
    if driver.name in ("pymysql", "mysqldb"):
        return arguments | {"ssl": {"ca": authority}}
    if driver.name == "mariadbconnector":
        return arguments | {"ssl": True, "ssl_ca": authority}  # an authority alone does not make it encrypt
    return arguments | {"ssl_ca": authority}  # mysqlconnector


@dataclass(frozen=True)
class Speech:
    """What the probes say to a server, by its dialect; None where it has no word for it.

    ``backend`` asks for the session's id; ``waiting`` is one row when session ``:id`` is executing a
    statement that waits, ``answered`` when its answer has been sent and nothing was asked since; ``setting`` is (set, read); ``lock`` is (take, is it free?);
    ``prepare`` is (prepare, execute); ``temporary`` is (create, read).
    """

    backend: str | None = None
    waiting: str | None = None
    answered: str | None = None
    setting: tuple[str, str] | None = None
    prepare: tuple[str, str] | None = None
    temporary: tuple[str, str] | None = None
    lock: tuple[str, str] | None = None


_POSTGRESQL = Speech(
    backend="SELECT pg_backend_pid()",
    waiting="SELECT 1 FROM pg_stat_activity WHERE pid = :id AND wait_event_type = 'Lock'",
    answered="SELECT 1 FROM pg_stat_activity WHERE pid = :id AND wait_event = 'ClientRead'",
    setting=("SET poolfork.parent = 'set'", "SELECT current_setting('poolfork.parent', true)"),
    prepare=("PREPARE poolfork_parent AS SELECT 'prepared'", "EXECUTE poolfork_parent"),
    temporary=(
        "CREATE TEMPORARY TABLE poolfork_parent AS SELECT 'temporary'",
        "SELECT * FROM poolfork_parent",
    ),
    lock=("SELECT pg_advisory_lock(:key)", "SELECT pg_try_advisory_lock(:key)"),
)
_MYSQL = Speech(
    backend="SELECT CONNECTION_ID()",
    waiting="SELECT 1 FROM information_schema.processlist WHERE id = :id AND command <> 'Sleep' AND info LIKE '%FOR UPDATE%'",
    answered="SELECT 1 FROM information_schema.processlist WHERE id = :id AND command = 'Sleep'",
    setting=("SET @poolfork_parent = 'set'", "SELECT @poolfork_parent"),
    prepare=("PREPARE poolfork_parent FROM 'SELECT 1'", "EXECUTE poolfork_parent"),
    temporary=(
        "CREATE TEMPORARY TABLE poolfork_parent AS SELECT 'temporary'",
        "SELECT * FROM poolfork_parent",
    ),
    lock=("SELECT GET_LOCK(CONCAT('poolfork', :key), 1)", "SELECT GET_LOCK(CONCAT('poolfork', :key), 0)"),
)
_SPEECH = {
    "postgresql": _POSTGRESQL,
    "cockroachdb": Speech(backend="SHOW session_id"),
    "redshift": Speech(backend="SELECT pg_backend_pid()"),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "mssql": Speech(backend="SELECT @@SPID"),
    "oracle": Speech(backend="SELECT SYS_CONTEXT('USERENV', 'SID') FROM DUAL"),
    "sqlite": Speech(
        temporary=(
            "CREATE TEMPORARY TABLE poolfork_parent AS SELECT 'temporary'",
            "SELECT * FROM poolfork_parent",
        )
    ),
}


def speech(dialect: str) -> Speech:
    """What is known of a dialect's SQL; for one that is not known here, a session marker has to do."""
    return _SPEECH.get(dialect, Speech())


def versions(driver: Driver) -> dict[str, str]:
    """The versions that decide what a cell measures, for the driver's own library too where it tells."""
    found = {"driver": driver.version() or ""}
    if driver.name in ("psycopg2", "psycopg", "psycopg-async"):
        if driver.name == "psycopg2":
            import psycopg2

            found["libpq"] = str(psycopg2.__libpq_version__)
        else:
            import psycopg

            found["libpq"] = f"{psycopg.pq.version()} ({psycopg.pq.__impl__})"
    if driver.server == "sqlite":
        import sqlite3

        found["sqlite"] = sqlite3.sqlite_version
    return {name: version for name, version in found.items() if version}


def machine() -> str:
    """The system that the table was measured on, without its name."""
    system = os.uname()
    return f"{system.sysname} {system.machine}"
