"""Texts for the tests of explain: what users reported, ways to wrap it, and what has nothing to do with it."""

from __future__ import annotations

import json
import re

# (what was reported, the entry it belongs to, where)
REPORTED = [
    ("SSL error: decryption failed or bad record mac", "tls-bad-record-mac", "gc3pie/gc3pie#550"),
    ("OperationalError('SSL error: decryption failed or bad record mac\\n',)", "tls-bad-record-mac", "wooey/Wooey#31"),
    ("OperationalError: SSL error: decryption failed or bad record mac", "tls-bad-record-mac", "rq/django-rq#123"),
    ("DatabaseError: SSL error: decryption failed or bad record mac", "tls-bad-record-mac", "translate/pootle#4200"),
    ("sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) SSL error: decryption failed or bad record mac",
     "tls-bad-record-mac", "emissions-api#237"),
    ("ssl error decryption failed or bad record mac", "tls-bad-record-mac", "brownbears.tistory.com/236"),
    ("psycopg2.OperationalError: SSL error: decryption failed or bad record mac", "tls-bad-record-mac", "tournesol#807"),
    ("psycopg.OperationalError: consuming input failed: SSL error: decryption failed or bad record mac",
     "tls-bad-record-mac", "taranis-ai#381"),
    ("psycopg.OperationalError: consuming input failed: decryption failed or bad record mac", "tls-bad-record-mac",
     "neondatabase/neon#1826"),
    ("sqlalchemy.exc.DatabaseError: (psycopg2.DatabaseError) SSL error: decryption failed or bad record mac",
     "tls-bad-record-mac", "davidsimic.com"),
    ("SSL SYSCALL error: EOF detected", "tls-eof", "nautobot#127"),
    ("(psycopg2.OperationalError) SSL SYSCALL error: EOF detected", "tls-eof", "spotify/luigi#3313"),
    ("OperationalError: (OperationalError) SSL connection has been closed unexpectedly", "tls-closed", "ckan#3243"),
    ("(psycopg2.DatabaseError) error with status PGRES_TUPLES_OK and no message from the libpq", "libpq-no-message",
     "apache/airflow#13265"),
    ("(DatabaseError) error with no message from the libpq", "libpq-no-message", "psycopg2#281"),
    ("DatabaseError('error with no message from the libpq',)", "libpq-no-message", "django-postgrespool#3"),
    ("ResourceClosedError: This result object does not return rows. It has been closed automatically.",
     "result-closed", "geopython/pywps#341"),
    ("ResourceClosedError('This result object does not return rows. It has been closed automatically.')",
     "result-closed", "apache/superset#9858"),
    ("sqlalchemy.exc.NoSuchColumnError", "no-such-column", "apache/superset#13350"),
    ("NoSuchColumnError: \"Could not locate column in row for column 'host_mappings.id'\"", "no-such-column",
     "sqlalchemy#10345"),
    ("Wrong response: Request 3 - Get 7", "wrong-response", "substra-backend#355"),
    ("could not receive data from client: Connection reset by peer", "pg-log-client-gone", "web2py#2269"),
    ("OperationalError: couldn't get a connection after 1.00 sec", "psycopg-pool-timeout", "dannyvfilms/Floppy#341"),
    ("children exit with code 11 (SIGSEGV)", "child-segfault", "steady-queue#49"),
    ("psycopg2.OperationalError: lost synchronization with server: got message type \"5\", length 1714972005",
     "libpq-lost-sync", "Pithus/bazaar#30"),
    ("(psycopg2.OperationalError) server closed the connection unexpectedly", "pg-server-closed", "ara#32"),
    ("(psycopg.errors.DuplicatePreparedStatement) prepared statement \"_pg3_0\" already exists",
     "prepared-statement-exists", "psycopg#911"),
    ("(MySQLdb.OperationalError) (2013, 'Lost connection to server during query')", "mysql-lost-2013", "airflow#56879"),
    ("2013 Lost connection to MySQL server during query", "mysql-lost-2013", "sqlalchemy#7815"),
    ("Lost connection to MySQL server during query", "mysql-lost-2013", "flask-sqlalchemy#536"),
    ("(2006, 'MySQL server has gone away')", "mysql-gone-2006", "sqlalchemy#7877"),
    ("OperationalError: (_mysql_exceptions.OperationalError) (2006, 'MySQL server has gone away')", "mysql-gone-2006",
     "stackguides.com/34252892"),
    ("(2014, \"Commands out of sync; you can't run this command now\")", "mysql-out-of-sync", "google/grr#30"),
    ("WARNING:sqlalchemy.pool.QueuePool:Error closing cursor: (2014, \"Commands out of sync; you can't run this "
     "command now\")", "mysql-out-of-sync", "cuckoo#476"),
    ("peewee.InternalError: Packet sequence number wrong - got 56 expected 1", "mysql-packet-sequence", "vnpy#2186"),
    ("ORA-24371: data would not fit in current prefetch buffer", "oracle-torn", "gunicorn#1953"),
    ("ORA-01013: user requested cancel of current operation", "oracle-cancelled", "gunicorn#1953"),
    ("ORA-03106: fatal two-task communication protocol error", "oracle-torn", "gunicorn#1953"),
    ("ORA-03113: end-of-file on communication channel", "oracle-eof", "gunicorn#1953"),
    ("ORA-03135: connection lost contact", "oracle-eof", "celery#2646"),
    ("AttributeError: 'NoneType' object has no attribute 'send'", "oracledb-no-transport", "python-oracledb#292"),
    ("DPY-4005: timed out waiting for the connection pool to return a connection", "oracledb-pool-timeout",
     "python-oracledb#402"),
    ("('08S01', '[08S01] [Microsoft][ODBC Driver 18 for SQL Server]TCP Provider: Error code 0x2746 (10054) "
     "(SQLExecDirectW)')", "odbc-link-failure", "unixODBC#149"),
    ("sqlalchemy.exc.ResourceClosedError: This Connection is closed", "sqlalchemy-connection-closed", "unixODBC#149"),
    ("disk I/O error", "sqlite-io-error", "rails/solid_queue#324"),
    ("sqlite3.DatabaseError: database disk image is malformed", "sqlite-malformed", "addok#343"),
    ("RuntimeError: thread::join failed: No such process", "duckdb-threads", "duckdb-python#292"),
    ("RuntimeError: Invalid argument", "duckdb-threads", "duckdb-python#292"),
    ("KeyError: <redis.connection.Connection object at 0x7f8e2c0d5a90>", "redis-keyerror", "redis-py#412"),
    ("'+OK'", "redis-crossed", "phpredis#1642"),
    ("TypeError: __init__() missing 2 required positional arguments: 'params' and 'orig'", "pickled-dbapi-error",
     "pytorch#51663"),
    ("Caught DatabaseError in DataLoader worker process 1", "pickled-dbapi-error", "pytorch#51663"),
    ("LOG:  SSL error: decryption failed or bad record mac", "tls-bad-record-mac", "EnterpriseDB/barman#686"),
    ("peewee.OperationalError: SSL error: bad decrypt", "tls-bad-record-mac", "coleifer/peewee#1757"),
    ("OperationalError: consuming input failed: SSL error: unexpected eof while reading", "tls-eof",
     "django-commons/django-tasks-scheduler#394"),
    ("pymysql.err.OperationalError: (2014, 'Command Out of Sync')", "mysql-out-of-sync", "PyMySQL#563"),
    ("Exception _mysql_exceptions.ProgrammingError: (2014, \"Commands out of sync; you can't run this command now\") in "
     "<bound method Cursor.__del__ of <MySQLdb.cursors.Cursor object at 0x101826410>> ignored", "mysql-out-of-sync",
     "passiomatic/coldsweat#25"),
    ("asyncpg.exceptions._base.InternalClientError: got result for unknown protocol state 3", "asyncpg-torn",
     "inmanta/inmanta-core#4342"),
    ("redis.exceptions.InvalidResponse: Protocol Error: b'1'", "redis-crossed", "celery/celery#6335"),
    ("OperationalError('SSL SYSCALL error: Bad file descriptor\\n',)", "descriptor-closed", "celery/celery#4878"),
    ("UserWarning: MongoClient opened before fork. Create MongoClient only after forking. See PyMongo's documentation "
     "for details: https://pymongo.readthedocs.io/en/stable/faq.html#is-pymongo-fork-safe", "mongo-opened-before-fork",
     "biothings.api#247"),
    ("(20020, 'DB-Lib error message 20020, severity 9:\\nBad token from the server: Datastream processing out of sync\\n')",
     "freetds-out-of-sync", "pymssql#148"),
    ("django.db.utils.OperationalError: Code: 100. Unknown packet 4 from server clickhouse.example.org:9000",
     "clickhouse-unexpected-packet", "clickhouse-driver#454"),
    ("DeprecationWarning: This process (pid=1991) is multi-threaded, use of fork() may lead to deadlocks in the child.",
     "fork-in-threads", "CleanCut/green"),
    ("psycopg2.DatabaseError:    PGRES_TUPLES_OK and no message from libpq", "libpq-no-message", "PlanExe#674"),
    ("Connection record belongs to pid 7, attempting to check out in pid 23", "pid-check", "sqlalchemy's documentation"),
    ("DEBUG oslo_db.sqlalchemy.engines [-] Parent process 96542 forked (96552) with an open database connection, which is "
     "being discarded and recreated.", "pid-check", "openstack/trove"),
    ("django.db.utils.InternalError: SET TRANSACTION ISOLATION LEVEL must be called before any query",
     "pg-transaction-mixed", "stackoverflow.com/questions/8242837"),
    ("FATAL:  terminating connection because protocol synchronization was lost", "pg-log-client-gone",
     "zksync-developers#527"),
    ("ORA-01012: not logged on", "oracle-eof", "yajra/laravel-oci8 679"),
    ("Work-horse was terminated unexpectedly (waitpid returned 11)", "child-segfault", "rq#1517"),
]  # fmt: skip

# Printed by real drivers whose connection was shared, while this data was collected.
MEASURED = [
    ("asyncpg.exceptions._base.InternalClientError: cannot switch to state 11; another operation (2) is in progress",
     "asyncpg-torn"),
    ('asyncpg.exceptions.DuplicatePreparedStatementError: prepared statement "__asyncpg_stmt_2__" already exists',
     "asyncpg-prepared-exists"),
    ("psycopg.OperationalError: consuming input failed: SSL error: unexpected eof while reading", "tls-eof"),
    ("psycopg.OperationalError: consuming input failed: SSL connection has been closed unexpectedly", "tls-closed"),
    ("psycopg.OperationalError: consuming input failed: server closed the connection unexpectedly\n"
     "\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.",
     "pg-server-closed"),
    ("pg8000.exceptions.InterfaceError: network error", "pg8000-torn"),
    ("sqlalchemy.exc.InterfaceError: (pg8000.exceptions.InterfaceError) network error", "pg8000-torn"),
    ("pg8000.exceptions.DatabaseError: {'S': 'ERROR', 'V': 'ERROR', 'C': '26000', 'M': 'unnamed prepared statement "
     "does not exist', 'F': 'postgres.c', 'L': '1670', 'R': 'exec_bind_message'}", "prepared-statement-missing"),
    ("MySQLdb.OperationalError: (2026, 'TLS/SSL error: decryption failed or bad record mac')", "tls-bad-record-mac"),
    ("MySQLdb.OperationalError: (2006, 'Server has gone away')", "mysql-gone-2006"),
    ("pymysql.err.OperationalError: (2013, 'Lost connection to MySQL server during query ([SSL: "
     "DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed or bad record mac (_ssl.c:2580))')", "tls-bad-record-mac"),
    ("mysql.connector.errors.OperationalError: 2055: Lost connection to MySQL server at '127.0.0.1:53223', system "
     "error: Errno 1: [SSL: SSLV3_ALERT_BAD_RECORD_MAC] sslv3 alert bad record mac (_ssl.c:2580)", "tls-bad-record-mac"),
    ("mysql.connector.errors.OperationalError: 2055: Lost connection to MySQL server at '127.0.0.1:53223', system "
     "error: 32 Broken pipe", "mysql-connector-lost"),
    ("mysql.connector.errors.OperationalError: MySQL Connection not available", "mysql-connector-lost"),
    ("sqlalchemy.exc.DBAPIError: (builtins.IndexError) bytearray index out of range\nmysql.connector",
     "mysql-malformed-packet"),
    ("ssl.SSLError: [SSL: SSLV3_ALERT_BAD_RECORD_MAC] sslv3 alert bad record mac (_ssl.c:2580)",
     "tls-bad-record-mac-python"),
]  # fmt: skip

# PostgreSQL's own translations (src/interfaces/libpq/po, src/backend/po), as libpq prints them.
TRANSLATED = [
    ("psycopg2.OperationalError: SSL-Fehler: decryption failed or bad record mac", "tls-bad-record-mac"),
    ("psycopg2.OperationalError: erreur SSL : decryption failed or bad record mac", "tls-bad-record-mac"),
    ("psycopg2.OperationalError: ошибка SSL: decryption failed or bad record mac", "tls-bad-record-mac"),
    ("psycopg2.OperationalError: SSLエラー: decryption failed or bad record mac", "tls-bad-record-mac"),
    ("psycopg2.OperationalError: SSL-SYSCALL-Fehler: Dateiende entdeckt", "tls-eof"),
    ("psycopg2.OperationalError: erreur SYSCALL SSL : EOF détecté", "tls-eof"),
    ("psycopg2.OperationalError: SSL-Verbindung wurde unerwartet geschlossen", "tls-closed"),
    ("psycopg2.OperationalError: la connexion SSL a été fermée de façon inattendue", "tls-closed"),
    ("psycopg2.OperationalError: la conexión SSL se ha cerrado inesperadamente", "tls-closed"),
    ("psycopg2.OperationalError: la connessione SSL è stata chiusa inaspettatamente", "tls-closed"),
    ("psycopg2.OperationalError: Synchronisation mit Server verloren: Nachrichtentyp »5« empfangen, Länge 1714972005",
     "libpq-lost-sync"),
    ("psycopg2.OperationalError: synchronisation perdue avec le serveur : a reçu le type de message « 5 »",
     "libpq-lost-sync"),
    ("psycopg2.OperationalError: Server beendete die Verbindung unerwartet\n\tDas heißt wahrscheinlich, dass der Server "
     "abnormal beendete", "pg-server-closed"),
    ("psycopg2.OperationalError: la connexion au serveur a été coupée de façon inattendue\n\tLe serveur s'est "
     "peut-être arrêté anormalement", "pg-server-closed"),
    ("psycopg2.OperationalError: el servidor ha cerrado la conexión inesperadamente", "pg-server-closed"),
    ("psycopg2.OperationalError: il server ha chiuso la connessione inaspettatamente", "pg-server-closed"),
    ("LOG:  unerwartetes EOF auf Client-Verbindung mit einer offenen Transaktion", "pg-log-client-gone"),
    ("LOG:  n'a pas pu recevoir les données du client : Connexion ré-initialisée par le correspondant",
     "pg-log-client-gone"),
    ("FATAL:  ungültiger Frontend-Message-Typ 120", "pg-log-client-gone"),
    ('psycopg.errors.DuplicatePreparedStatement: vorbereitete Anweisung »_pg3_0« existiert bereits',
     "prepared-statement-exists"),
    ("WARNUNG:  eine Transaktion ist bereits begonnen", "pg-transaction-mixed"),
]  # fmt: skip

# Real texts beside those above that a reader may paste: other drivers' wordings, and cut off.
FURTHER = [
    ("OperationalError: 2013 (HY000): Lost connection to MySQL server at 'db:3306', system error: 104",
     "mysql-connector-lost"),
    ("psycopg.OperationalError: consuming input failed: SSL error: decryption failed or bad re", "tls-bad-record-mac"),
    ('MySQLdb._exceptions.OperationalError: (2006, "")', "mysql-gone-2006"),
    ("psycopg2.OperationalError: unexpected response from server; first received character was \"5\"",
     "libpq-lost-sync"),
    ("(1156, 'Got packets out of order')", "mysql-packet-sequence"),
    ("ProgrammingError('no results to fetch')", "psycopg2-no-results"),
    ("[ERROR] Worker (pid:12) was sent SIGSEGV!", "child-segfault"),
    ("  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n  +-+---------------- 1 ----------------\n"
     "    | psycopg.ProgrammingError: the last operation didn't produce records (command status: BEGIN)",
     "psycopg-no-result"),
    ("╭───── Traceback (most recent call last) ─────╮\n│ /app/x.py:10 in y                           │\n"
     "│ DatabaseError: error with status            │\n│ PGRES_TUPLES_OK and no message from the     │\n"
     "│ libpq                                       │\n╰─────────────────────────────────────────────╯",
     "libpq-no-message"),
    ("> OperationalError('consuming input failed: decryption failed or bad\n> record mac')", "tls-bad-record-mac"),
    ("> > psycopg2.OperationalError: server closed the\n> > connection unexpectedly", "pg-server-closed"),
    ("psycopg.errors.ProtocolViolation: terminating connection because protocol synchronization was lost",
     "pg-protocol-violation"),
    ("Work-horse terminated unexpectedly; waitpid returned 139 (signal 11); ", "child-segfault"),
    ("Traceback (most recent call last):\n  File \"pymysql/connections.py\", line 684, in _read_packet\n"
     "pymysql.err.InternalError: Packet sequence number wrong - got 5 expected 1\n\n"
     "During handling of the above exception, another exception occurred:\n\n"
     "AttributeError: 'NoneType' object has no attribute 'settimeout'", "mysql-packet-sequence"),
]  # fmt: skip

# Where the error comes from, so that a wrapped text names its driver as a real traceback does.
FRAMES = {
    "clickhouse": "clickhouse_driver/connection.py", "freetds": "pymssql/_pymssql.pyx",
    "oracle": "oracledb/impl/thin/transport.pyx", "duckdb": "duckdb/__init__.py", "redis": "redis/connection.py",
    "sqlite": "sqlalchemy/dialects/sqlite/pysqlite.py", "pg8000": "pg8000/core.py",
    "mysql": "MySQLdb/cursors.py", "tls-bad-record-mac-python": "pymysql/connections.py",
}  # fmt: skip


def varied(text: str, number: int, name: str) -> str:
    """The text with other numbers, addresses, statement and column names."""
    text = re.sub(r"0x7f[0-9a-f]+", f"0x7f{number:010x}", text)
    text = re.sub(r"_pg3_0", f"_pg3_{number % 97}", text)
    text = text.replace("host_mappings.id", f"{name}.{name}_id").replace(
        "127.0.0.1:53223", f"db-{number}.{name}.eu:3306"
    )
    text = re.sub(r"length \d+", f"length {number}", text)
    text = re.sub(r"got \d+ expected", f"got {number % 255} expected", text)
    text = re.sub(r"pid=\d+", f"pid={number}", text)
    text = re.sub(r"_ssl\.c:\d+", f"_ssl.c:{number % 3000}", text)
    text = re.sub(r"after 1\.00 sec", f"after {number % 60}.00 sec", text)
    text = re.sub(r"process 1$", f"process {number % 64}", text)
    return re.sub(r"Request \d+ - Get \d+", f"Request {number} - Get {number + 1}", text)


def _frame(entry: str) -> str:
    return next(
        (path for part, path in FRAMES.items() if entry.startswith(part)), "sqlalchemy/engine/default.py"
    )


def _traceback(text: str, entry: str, name: str) -> str:
    return (
        "Traceback (most recent call last):\n"
        f'  File "/srv/{name}/venv/lib/python3.12/site-packages/{_frame(entry)}", line 719, in do_execute\n'
        f"    cursor.execute(statement, parameters)\n{text}"
    )


def _chained(text, entry, number, name):
    return (
        _traceback(text, entry, name)
        + "\n\nThe above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        f'  File "/srv/{name}/views.py", line {number % 900}, in get\n    return list(session.scalars(query))\n{text}\n'
        f"[SQL: SELECT {name}.id FROM {name} WHERE {name}.id = %(id_1)s]\n[parameters: {{'id_1': {number}}}]\n"
        "(Background on this error at: https://sqlalche.me/e/20/e3q8)"
    )


def _django(text, entry, number, name):
    return (
        _chained(text, entry, number, name)
        + "\n\nDuring handling of the above exception, another exception occurred:\n\n"
        f'Traceback (most recent call last):\n  File "/srv/{name}/django/core/handlers/exception.py", line 55, in inner\n'
        f"    response = get_response(request)\ndjango.db.utils.OperationalError: {text}"
    )


def _celery(text, entry, number, name):
    return (
        f"[2026-03-{number % 27 + 1:02} 10:22:01,074: ERROR/ForkPoolWorker-{number % 16}] Task {name}.tasks.run"
        f"[5d5ae263-1ed5-4a2f-8e0b-{number:012}] raised unexpected: "
        + text
        + "\n"
        + _traceback(text, entry, name)
    )


def _docker(text, entry, number, name):
    lines = _traceback(text, entry, name).splitlines()
    return "\n".join(f"{name}_web_1  | 2026-05-01T10:00:{number % 60:02}Z {line}" for line in lines)


def _pool(text, entry, number, name):
    return (
        f'multiprocessing.pool.RemoteTraceback: \n"""\n{_traceback(text, entry, name)}\n"""\n\n'
        "The above exception was the direct cause of the following exception:\n\nTraceback (most recent call last):\n"
        f'  File "main.py", line {number % 99}, in <module>\n    pool.map(work, range(8))\n{text}'
    )


def _json(text, entry, number, name):
    return json.dumps(
        {"event": "Internal Server Error", "pid": number, "exc_info": _traceback(text, entry, name)}
    )


def _twice_escaped(text, entry, number, name):
    return json.dumps({"log": json.dumps({"msg": f"{name} failed: " + _traceback(text, entry, name)})})


def _html(text, entry, number, name):
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = escaped.replace('"', "&quot;").replace("'", "&#x27;")
    return f"<title>OperationalError at /{name}/</title>\n<pre class='exception_value'>{escaped}</pre> {_frame(entry)}"


def _coloured(text, entry, number, name):
    return f"\x1b[31mERROR\x1b[0m [{number}] {_frame(entry)} \x1b[1m{text}\x1b[0m"


def _terminal(text, entry, number, name):
    whole = f"{name}: {_traceback(text, entry, name)}"
    return re.sub(
        r"(?<=\S) (?=\S)", lambda _: " ", "\n".join(_wrapped(line, 60) for line in whole.splitlines())
    )


def _wrapped(line, width):
    words, lines = line.split(" "), [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return "\n".join(lines)


WRAPPINGS = [
    lambda text, *_: text, lambda text, entry, number, name: _traceback(text, entry, name),
    _chained, _django, _celery, _docker, _pool, _json, _twice_escaped, _html, _coloured, _terminal,
]  # fmt: skip

# -- what has nothing to do with it --------------------------------------------------------------

_LAST_LINES = """
KeyError: 'user_id'
KeyError: 5432
IndexError: list index out of range
AttributeError: 'NoneType' object has no attribute 'id'
AttributeError: 'NoneType' object has no attribute 'send'
AttributeError: module 'app' has no attribute 'db'
TypeError: unsupported operand type(s) for +: 'int' and 'str'
TypeError: __init__() missing 1 required positional argument: 'request'
TypeError: __init__() missing 2 required positional arguments: 'name' and 'value'
ValueError: invalid literal for int() with base 10: 'abc'
ZeroDivisionError: division by zero
RuntimeError: dictionary changed size during iteration
RuntimeError: Invalid argument
RuntimeError: Event loop is closed
RecursionError: maximum recursion depth exceeded
MemoryError
UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte
OSError: [Errno 28] No space left on device
OSError: [Errno 24] Too many open files
OSError: [Errno 5] Input/output error: '/var/lib/app/data.bin'
FileNotFoundError: [Errno 2] No such file or directory: 'settings.toml'
PermissionError: [Errno 13] Permission denied: '/etc/shadow'
BrokenPipeError: [Errno 32] Broken pipe
ConnectionResetError: [Errno 104] Connection reset by peer
ConnectionRefusedError: [Errno 111] Connection refused
TimeoutError: [Errno 110] Connection timed out
asyncio.exceptions.TimeoutError
asyncio.exceptions.CancelledError
asyncio.exceptions.InvalidStateError: invalid state
struct.error: unpack requires a buffer of 4 bytes
struct.error: unpack_from requires a buffer of at least 5 bytes for unpacking 5 bytes at offset 0 (actual buffer size is 0)
pickle.PicklingError: Can't pickle <function <lambda> at 0x7f1>: attribute lookup <lambda> on __main__ failed
EOFError: Ran out of input
json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)
requests.exceptions.ConnectionError: ('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))
requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='api.example.org', port=443): Read timed out. (read timeout=5)
requests.exceptions.SSLError: HTTPSConnectionPool(host='x', port=443): Max retries exceeded (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1000)')))
requests.exceptions.HTTPError: 500 Server Error: Internal Server Error for url: https://api.example.org/
urllib3.exceptions.ProtocolError: ('Connection broken: IncompleteRead(0 bytes read)', IncompleteRead(0 bytes read))
ssl.SSLError: [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1000)
ssl.SSLError: [SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed or bad record mac (_ssl.c:2580)
ssl.SSLEOFError: EOF occurred in violation of protocol (_ssl.c:2427)
httpx.ConnectTimeout: timed out
aiohttp.client_exceptions.ServerDisconnectedError: Server disconnected
aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host db:5432 ssl:default [Connect call failed]
botocore.exceptions.NoCredentialsError: Unable to locate credentials
django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty.
django.core.exceptions.ValidationError: ['“x” is not a valid UUID.']
django.db.utils.IntegrityError: duplicate key value violates unique constraint "auth_user_username_key"
django.db.utils.ProgrammingError: relation "app_thing" does not exist
django.db.utils.OperationalError: no such table: app_thing
django.db.utils.OperationalError: database is locked
django.db.transaction.TransactionManagementError: An error occurred in the current transaction. You can't execute queries until the end of the 'atomic' block.
django.template.exceptions.TemplateDoesNotExist: home.html
app.models.Thing.DoesNotExist: Thing matching query does not exist.
app.models.Thing.MultipleObjectsReturned: get() returned more than one Thing -- it returned 2!
sqlalchemy.exc.IntegrityError: (psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "users_email_key"
sqlalchemy.exc.IntegrityError: (pymysql.err.IntegrityError) (1062, "Duplicate entry 'a@b.c' for key 'users.email'")
sqlalchemy.exc.IntegrityError: (sqlite3.IntegrityError) NOT NULL constraint failed: users.name
sqlalchemy.exc.IntegrityError: (psycopg.errors.ForeignKeyViolation) insert or update on table "a" violates foreign key constraint
sqlalchemy.exc.ProgrammingError: (psycopg2.errors.UndefinedTable) relation "users" does not exist
sqlalchemy.exc.ProgrammingError: (psycopg2.errors.SyntaxError) syntax error at or near "FORM"
sqlalchemy.exc.ProgrammingError: (pymysql.err.ProgrammingError) (1064, "You have an error in your SQL syntax")
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) unable to open database file
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database or disk is full
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) could not extend file "base/1/2": No space left on device
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) FATAL:  password authentication failed for user "app"
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server at "10.0.0.5", port 5432 failed: Connection refused
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server at "10.0.0.5", port 5432 failed: server closed the connection unexpectedly
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server at "10.0.0.5", port 5432 failed: SSL SYSCALL error: EOF detected
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server on socket "/tmp/.s.PGSQL.5432" failed: No such file or directory
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) FATAL:  sorry, too many clients already
sqlalchemy.exc.OperationalError: (psycopg2.errors.QueryCanceled) canceling statement due to statement timeout
sqlalchemy.exc.OperationalError: (psycopg2.errors.DeadlockDetected) deadlock detected
sqlalchemy.exc.OperationalError: (psycopg2.errors.AdminShutdown) terminating connection due to administrator command SSL connection has been closed unexpectedly
sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError) (1045, "Access denied for user 'app'@'10.0.0.2' (using password: YES)")
sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError) (2003, "Can't connect to MySQL server on 'db' ([Errno 111] Connection refused)")
sqlalchemy.exc.OperationalError: (MySQLdb.OperationalError) (2002, "Can't connect to local server through socket '/run/mysqld/mysqld.sock' (2)")
sqlalchemy.exc.OperationalError: (MySQLdb.OperationalError) (2013, "Lost connection to server at 'handshake: reading initial communication packet', system error: 104")
sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError) (1205, 'Lock wait timeout exceeded; try restarting transaction')
sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError) (1040, 'Too many connections')
sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError) (1153, "Got a packet bigger than 'max_allowed_packet' bytes")
sqlalchemy.exc.DataError: (psycopg2.errors.StringDataRightTruncation) value too long for type character varying(20)
sqlalchemy.exc.DataError: (pymysql.err.DataError) (1406, "Data too long for column 'name' at row 1")
sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00
sqlalchemy.exc.NoResultFound: No row was found when one was required
sqlalchemy.exc.MultipleResultsFound: Multiple rows were found when exactly one was required
sqlalchemy.exc.InvalidRequestError: Can't reconnect until invalid transaction is rolled back.
sqlalchemy.exc.PendingRollbackError: This Session's transaction has been rolled back due to a previous exception during flush.
sqlalchemy.exc.MissingGreenlet: greenlet_spawn has not been called; can't call await_only() here.
sqlalchemy.exc.ArgumentError: Could not parse SQLAlchemy URL from given URL string
sqlalchemy.exc.NoSuchModuleError: Can't load plugin: sqlalchemy.dialects:postgres
sqlalchemy.exc.StatementError: (builtins.TypeError) SQLite DateTime type only accepts Python datetime
sqlalchemy.orm.exc.DetachedInstanceError: Instance <User at 0x7f1> is not bound to a Session
sqlalchemy.orm.exc.StaleDataError: UPDATE statement on table 'users' expected to update 1 row(s); 0 were matched.
sqlalchemy.orm.exc.ObjectDeletedError: Instance '<User at 0x7f1>' has been deleted
psycopg2.ProgrammingError: no results to fetch
psycopg.ProgrammingError: the last operation didn't produce records (command status: INSERT 0 1)
psycopg.OperationalError: the connection is closed
pymysql.err.InterfaceError: (0, '')
psycopg.errors.ProtocolViolation: bind message supplies 1 parameters, but prepared statement "" requires 2
ssl.SSLError: [SSL: BAD_RECORD_TYPE] bad record type (_ssl.c:2580)
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server at "10.0.0.5", port 5432 failed: SSL error: wrong version number
pymysql.err.OperationalError: (2003, "Can't connect to MySQL server on 'db' ([SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006))")
RuntimeError: readexactly() called while another coroutine is already waiting for incoming data
psycopg.OperationalError: sending query failed: another command is already in progress
psycopg2.OperationalError: SSL SYSCALL error: Connection timed out
mysql.connector.errors.InternalError: Unread result found
KeyError: b'x'
AttributeError: 'NoneType' object has no attribute 'append'
AttributeError: 'NoneType' object has no attribute 'cancelled'
IndexError: bytearray index out of range
google.protobuf.message.DecodeError: Error parsing message: invalid message format
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) Verbindung zum Server auf »10.0.0.5«, Port 5432 fehlgeschlagen: Server beendete die Verbindung unerwartet
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) FATAL:  tut mir leid, schon zu viele Verbindungen
psycopg2.errors.AdminShutdown: Verbindung wird abgebrochen aufgrund von Anweisung des Administrators Server beendete die Verbindung unerwartet
psycopg2.errors.AdminShutdown: arrêt des connexions suite à la demande de l'administrateur
clickhouse_driver.errors.ServerException: Code: 60. DB::Exception: Table default.t does not exist
pymssql.OperationalError: (20009, b'DB-Lib error message 20009, severity 9: Unable to connect: Adaptive Server is unavailable')
psycopg2.ProgrammingError: can't adapt type 'dict'
psycopg2.InterfaceError: cursor already closed
psycopg2.InterfaceError: connection already closed
psycopg2.errors.InFailedSqlTransaction: current transaction is aborted, commands ignored until end of transaction block
psycopg2.errors.InsufficientPrivilege: permission denied for table users
psycopg2.errors.SerializationFailure: could not serialize access due to concurrent update
psycopg2.errors.DiskFull: could not write to file "base/pgsql_tmp/x": No space left on device
psycopg.errors.UndefinedColumn: column "nmae" does not exist
psycopg.OperationalError: connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  database "app" does not exist
psycopg.ProgrammingError: the query has 2 placeholders but 1 parameters were passed
asyncpg.exceptions.UniqueViolationError: duplicate key value violates unique constraint "u"
asyncpg.exceptions.QueryCanceledError: canceling statement due to statement timeout
asyncpg.exceptions.InvalidPasswordError: password authentication failed for user "app"
asyncpg.exceptions.TooManyConnectionsError: sorry, too many clients already
asyncpg.exceptions._base.InterfaceError: cannot perform operation: another operation is in progress
asyncpg.exceptions.UndefinedTableError: relation "users" does not exist
RuntimeError: Task <Task pending name='Task-3'> got Future <Future pending> attached to a different loop
mysql.connector.errors.ProgrammingError: 1045 (28000): Access denied for user 'app'@'localhost' (using password: YES)
mysql.connector.errors.InterfaceError: 2003: Can't connect to MySQL server on 'db:3306' (111 Connection refused)
mysql.connector.errors.DatabaseError: 1205 (HY000): Lock wait timeout exceeded; try restarting transaction
oracledb.exceptions.DatabaseError: ORA-00942: table or view does not exist
oracledb.exceptions.DatabaseError: ORA-01017: invalid username/password; logon denied
oracledb.exceptions.IntegrityError: ORA-00001: unique constraint (APP.U) violated
pyodbc.ProgrammingError: ('42S02', "[42S02] [Microsoft][ODBC Driver 18 for SQL Server][SQL Server]Invalid object name 'x'. (208) (SQLExecDirectW)")
pyodbc.OperationalError: ('HYT00', '[HYT00] [Microsoft][ODBC Driver 18 for SQL Server]Login timeout expired (0) (SQLDriverConnect)')
pyodbc.Error: ('HY000', '[HY000] [Microsoft][ODBC SQL Server Driver]Connection is busy with results for another hstmt (0)')
redis.exceptions.ConnectionError: Error 111 connecting to localhost:6379. Connection refused.
redis.exceptions.ConnectionError: Connection closed by server.
redis.exceptions.ResponseError: WRONGTYPE Operation against a key holding the wrong kind of value
redis.exceptions.AuthenticationError: invalid username-password pair or user is disabled.
redis.exceptions.TimeoutError: Timeout reading from localhost:6379
pymongo.errors.ServerSelectionTimeoutError: localhost:27017: [Errno 111] Connection refused
pymongo.errors.DuplicateKeyError: E11000 duplicate key error collection: app.users
kombu.exceptions.OperationalError: [Errno 111] Connection refused
celery.exceptions.NotRegistered: 'app.tasks.run'
celery.exceptions.SoftTimeLimitExceeded: SoftTimeLimitExceeded()
billiard.exceptions.WorkerLostError: Worker exited prematurely: signal 9 (SIGKILL) Job: 3.
concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated abruptly while the future was running or pending.
multiprocessing.managers.RemoteError: ValueError: x
gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>
jinja2.exceptions.UndefinedError: 'user' is undefined
pydantic_core._pydantic_core.ValidationError: 1 validation error for User
werkzeug.routing.exceptions.BuildError: Could not build url for endpoint 'index'.
fastapi.exceptions.ResponseValidationError: 1 validation errors
numpy.linalg.LinAlgError: Singular matrix
torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
pandas.errors.ParserError: Error tokenizing data. C error: Expected 3 fields in line 7, saw 4
alembic.util.exc.CommandError: Can't locate revision identified by 'abc'
ModuleNotFoundError: No module named 'psycopg2'
ImportError: libpq.so.5: cannot open shared object file: No such file or directory
"""


# Log lines without a traceback around them, which no driver printed; each once had a false match.
UNRELATED_LINES = [
    "error: unexpected response from server: 502 Bad Gateway",
    "12 packets out of order",
    "INFO crawler: no results to fetch for query 17",
    "process exited with code 11",
    "LOG:  server process (PID 8123) was terminated by signal 11: Segmentation fault",
    "curl: (56) OpenSSL SSL_read: error:0A000126:SSL routines::unexpected eof while reading, errno 0",
    "SSL_do_handshake() failed (SSL: error:0A000119:SSL routines::decryption failed or bad record mac), client: 1.2.3.4",
    "write EPROTO 140:error:1408F119:SSL routines:ssl3_get_record:decryption failed or bad record mac:../ssl/record.c",
    "requests.exceptions.SSLError: HTTPSConnectionPool(host='x', port=443): Max retries exceeded (Caused by SSLError(1, "
    "'[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed or bad record mac (_ssl.c:2580)'))",
    "psycopg2.errors.ProtocolViolation: query_wait_timeout\nserver closed the connection unexpectedly",
    "OperationalError: connection failed: server closed the connection unexpectedly",
    'Traceback (most recent call last):\n  File "celery/app/trace.py", line 453, in trace_task\n'
    "AttributeError: 'NoneType' object has no attribute 'send'",
    'Traceback (most recent call last):\n  File "sqlalchemy/orm/session.py", line 1, in commit\n'
    '  File "urllib3/connectionpool.py", line 468, in _make_request\n'
    "ssl.SSLError: [SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed or bad record mac (_ssl.c:2580)",
]


def unrelated() -> list[str]:
    """More than a hundred tracebacks whose cause is something else."""
    found = []
    for number, line in enumerate(_LAST_LINES.strip().splitlines()):
        package = line.split(".")[0] if "." in line.split(":")[0] else "app"
        found.append(
            "Traceback (most recent call last):\n"
            f'  File "/srv/shop/app/views.py", line {number + 10}, in index\n    return handle(request)\n'
            f'  File "/srv/shop/venv/lib/python3.12/site-packages/{package}/core.py", line {number}, in handle\n'
            f"    raise error\n{line}\n"
        )
    return found
