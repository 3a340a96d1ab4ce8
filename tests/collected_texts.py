"""Error texts as people pasted them, each with where; and what other programs print.

Log prefixes, quotation marks, cut ends and misspellings are theirs; paths are shortened.
"""

from __future__ import annotations

# (as pasted, the entry it belongs to, where)
COLLECTED = [
    (
        'psycopg2.OperationalError: lost synchronization with server: got message type "p", '
        "length 1919903337",
        "libpq-lost-sync",
        "https://github.com/PlanExeOrg/PlanExe/pull/674",
    ),
    (
        'psycopg2.OperationalError: insufficient data in "D" message',
        "libpq-lost-sync",
        "https://github.com/PlanExeOrg/PlanExe/pull/674",
    ),
    (
        "psycopg2.DatabaseError:    PGRES_TUPLES_OK and no message from libpq",
        "libpq-no-message",
        "https://github.com/PlanExeOrg/PlanExe/pull/674",
    ),
    (
        "- 'error with status PGRES_TUPLES_OK and no message from the libpq'.",
        "libpq-no-message",
        "https://github.com/psycopg/psycopg2/issues/994",
    ),
    (
        "[2020-12-22 18:49:39,085: WARNING/ForkPoolWorker-2] Failed to log action with "
        "(psycopg2.DatabaseError) error with status PGRES_TUPLES_OK and no message from the "
        "libpq",
        "libpq-no-message",
        "https://github.com/apache/airflow/pull/13265",
    ),
    (
        "> DatabaseError('(psycopg2.DatabaseError) error with status\n"
        "> PGRES_TUPLES_OK and no message from the libpq')",
        "libpq-no-message",
        "https://github.com/apache/superset/issues/9860",
    ),
    (
        "Task main.tasks.scheduled_messages[3768b5f2-ac3e-4e6c-83ad-5b842861d6e7] raised "
        "exception: DatabaseError('error with no message from the libpq',)\n"
        "Traceback (most recent call last):\n"
        "  File "
        '"/srv/dev/sendhub/project/venv/lib/python2.7/site-packages/celery/task/trace.py", '
        "line 224, in trace_task\n"
        "    R = retval = fun(_args, *_kwargs)\n",
        "libpq-no-message",
        "https://github.com/heroku-python/django-postgrespool/issues/3",
    ),
    (
        "2014-10-17 11:59:21,414:ERROR:sqlalchemy.pool.QueuePool:pool:Exception during reset "
        "or similar\n"
        "Traceback (most recent call last):\n"
        ' File "/srv/env/local/lib/python2.7/site-packages/sqlalchemy/pool.py", line 565, in '
        "_finalize_fairy\n"
        "fairy._reset(pool, echo)\n"
        "    dbapi_connection.rollback()\n"
        "OperationalError: server closed the connection unexpectedly\n"
        "This probably means the server terminated abnormally\n"
        "before or while processing the request.",
        "pg-server-closed",
        "https://github.com/celery/celery/issues/2322",
    ),
    (
        "| Traceback (most recent call last):\n"
        '| File "/usr/local/lib/python3.7/site-packages/sqlalchemy/engine/base.py", line '
        "1277, in _execute_context\n"
        "| cursor, statement, parameters, context\n"
        "| psycopg2.OperationalError: server closed the connection unexpectedly\n"
        "| This probably means the server terminated abnormally\n"
        "| before or while processing the request.",
        "pg-server-closed",
        "https://github.com/apache/airflow/issues/18908",
    ),
    (
        "[Scheduler error] psycopg2.OperationalError: SSL SYSCALL error: Socket operation on non-socket",
        "descriptor-closed",
        "https://github.com/apache/airflow/issues/17120",
    ),
    (
        "psycopg2.OperationalError: SSL SYSCALL error: EOF detected\n",
        "tls-eof",
        "https://github.com/apache/airflow/issues/18846",
    ),
    (
        "\\ndjango.db.utils.OperationalError: SSL error: sslv3 alert bad record mac\\n\\n',)\n"
        "^C08:20:59 [Q] INFO Q Cluster early-hot-neptune-neptune stopping.",
        "tls-bad-record-mac",
        "https://github.com/Koed00/django-q/issues/484",
    ),
    (
        "[2012-06-20 17:58:50,307: ERROR/MainProcess] Unrecoverable error: "
        "DatabaseError('SSL error: sslv3 alert bad record mac\\n',)\n"
        "Traceback (most recent call last):\n"
        '  File "/srv/x/celery/worker/__init__.py", line 230, in start\n'
        "    component.start()",
        "tls-bad-record-mac",
        "https://github.com/celery/celery/issues/814",
    ),
    (
        "> OperationalError('consuming input failed: decryption failed or bad \n"
        "> record mac')\n"
        "> Traceback (most recent call last):\n"
        ">   File \n"
        '> "/srv/venv/lib/python3.10/site-packages/celery/app/trace.py", \n'
        "> line 451, in trace_task\n"
        ">     R = retval = fun(*args, **kwargs)\n"
        "> psycopg.OperationalError: consuming input failed: decryption failed or \n"
        "> bad record mac",
        "tls-bad-record-mac",
        "https://github.com/neondatabase/neon/issues/1826",
    ),
    (
        "postgres:   \x1b[31mPG::ConnectionBad: server closed the connection unexpectedly\x1b[0m",
        "pg-server-closed",
        "https://github.com/discourse/discourse/pull/43767",
    ),
    (
        "SET TRANSACTION ISOLATION LEVEL must be called before any query",
        "pg-transaction-mixed",
        "https://stackoverflow.com/questions/8242837/django-multiprocessing-and-database-connections",
    ),
    (
        "django.db.utils.InternalError: SET TRANSACTION ISOLATION LEVEL must be called before any query",
        "pg-transaction-mixed",
        "https://stackoverflow.com/questions/8242837/django-multiprocessing-and-database-connections",
    ),
    (
        "postgres-1       | 2024-05-13 18:11:29.737 UTC [10157] FATAL:  terminating "
        "connection because protocol synchronization was lost\n"
        "postgres-1       | 2024-05-13 18:11:29.740 UTC [10156] LOG:  could not send data to "
        "client: Broken pipe",
        "pg-log-client-gone",
        "https://github.com/zkSync-Community-Hub/zksync-developers/issues/527",
    ),
    (
        "2013-02-23 FATAL:  invalid frontend message type 87",
        "pg-log-client-gone",
        "https://github.com/bucardo/bucardo/issues/56",
    ),
    (
        "DBD::Pg::st execute failed: no connection to the server at Bucardo.pm line 4849.",
        "pg-server-closed",
        "https://github.com/bucardo/bucardo/issues/56",
    ),
    (
        "2022-10-31 12:54:18.737 CET [4140] LOG:  SSL error: decryption failed or bad record "
        "mac\r\n"
        "2022-10-31 12:54:18.737 CET [4140] LOG:  could not receive data from client: "
        "Connection reset by peer\r\n",
        "tls-bad-record-mac",
        "https://github.com/EnterpriseDB/barman/issues/686",
    ),
    (
        "InterfaceError: connection already closed\n"
        '  File "django/db/backends/base/base.py", line 234, in _cursor\n'
        "    return self._prepare_cursor(self.create_cursor(name))\n"
        '  File "djcall/models.py", line 27, in spooler\n'
        "InterfaceError: connection already closed\n"
        "(6 additional frame(s) were not displayed) uwsgi",
        "pg-already-closed",
        "https://github.com/betagouv/mrs/issues/538",
    ),
    (
        "  File "
        '"/usr/local/src/kontactsport.pypy/env/site-packages/gunicorn/workers/sync.py", line '
        "99, in handle_request\n"
        "    respiter = self.wsgi(environ, resp.start_response)\n"
        '  File "psycopg2ct/_impl/connection.py", line 38, in check_closed_\n'
        "    raise exceptions.InterfaceError('connection already closed')",
        "pg-already-closed",
        "https://github.com/mvantellingen/psycopg2-ctypes/issues/22",
    ),
    (
        "2017-01-09 13:27:01.219 DEBUG oslo_db.sqlalchemy.engines [-] Parent process 96542 "
        "forked (96552) with an open database connection, which is being discarded and "
        "recreated. from (pid=96552) checkout "
        "/usr/local/lib/python2.7/dist-packages/oslo_db/sqlalchemy/engines.py:362",
        "pid-check",
        "https://github.com/openstack/trove/blob/910519127d8fb9880863eb219df68a574d00df6a/doc/source/admin/secure_oslo_messaging.rst",
    ),
    (
        "sqlalchemy.exc.DisconnectionError: Connection record belongs to pid 7, attempting "
        "to check out in pid 23",
        "pid-check",
        "https://docs.sqlalchemy.org/en/20/core/pooling.html#using-connection-pools-with-multiprocessing-or-os-fork",
    ),
    (
        "INFO sqlalchemy.pool.impl.QueuePool Disconnection detected on checkout: Connection "
        "record belongs to pid 96542, attempting to check out in pid 96552",
        "pid-check",
        "https://docs.sqlalchemy.org/en/20/core/pooling.html#using-connection-pools-with-multiprocessing-or-os-fork",
    ),
    (
        "Failed to execute `SET group_concat_max_len=100000` with `[]` because of `(2014, "
        '"Commands out of sync; you can\'t run this command now")`',
        "mysql-out-of-sync",
        "https://github.com/PennyDreadfulMTG/Penny-Dreadful-Tools/issues/2184",
    ),
    (
        "WARNING:sqlalchemy.pool.QueuePool:Error closing cursor: (2014, &quot;Commands out "
        "of sync; you can&#39;t run this command now&quot;)",
        "mysql-out-of-sync",
        "https://github.com/cuckoosandbox/cuckoo/issues/475",
    ),
    (
        "2017-09-28 18:13:17,765 ERROR [sqlalchemy.pool.QueuePool][b'uWSGIWorker1Core0'] "
        "Exception during reset or similar\n"
        "Traceback (most recent call last):\n"
        '  File "/var/www/…/lib64/python3.6/site-packages/pymysql/connections.py", line '
        "1001, in _read_packet\n"
        "    % (packet_number, self._next_seq_id))\n"
        "pymysql.err.InternalError: Packet sequence number wrong - got 45 expected 1",
        "mysql-packet-sequence",
        "https://github.com/PyMySQL/PyMySQL/issues/606",
    ),
    (
        "InternalError: (pymysql.err.InternalError) Packet sequence number wrong - got 1 expected 22 `",
        "mysql-packet-sequence",
        "https://github.com/PyMySQL/PyMySQL/issues/423",
    ),
    (
        "pynysql.err.InternalError: Packet sequence number wrong - got 2 expected I ",
        "mysql-packet-sequence",
        "https://github.com/PyMySQL/PyMySQL/issues/622",
    ),
    (
        "Unhandled exception:\n"
        "<class 'asyncmy.errors.InternalError'>\n"
        "InternalError('Packet sequence number wrong - got 102 expected 1')",
        "mysql-packet-sequence",
        "https://github.com/long2ice/asyncmy/issues/89",
    ),
    (
        "ERROR SESSION: (asyncmy.errors.InternalError) Packet sequence number wrong - got 52 "
        "expected 1\n"
        "(Background on this error at: https://sqlalche.me/e/20/2j85)",
        "mysql-packet-sequence",
        "https://github.com/long2ice/asyncmy/issues/129",
    ),
    (
        "[MysqlClient]\nSQL error: Packet sequence number wrong - got 1 expected 2",
        "mysql-packet-sequence",
        "https://github.com/BitcoinExchangeFH/BitcoinExchangeFH/issues/122",
    ),
    (
        'site-packages/aiomysql/connection.py\\", line 629, in _read_packet\\n    raise '
        "InternalError(\\npymysql.err.InternalError: Packet sequence number wrong - got 1 "
        'expected 2"}',
        "mysql-packet-sequence",
        "https://github.com/aio-libs/aiomysql/issues/988",
    ),
    (
        "sqlalchemy.exc.OperationalError: (OperationalError) (2006, 'MySQL server has gone "
        "away') 'SELECT ge...",
        "mysql-gone-2006",
        "https://newbetuts.com/407612-error-2006-mysql-server-has-gone-away",
    ),
    (
        "sqlalchemy.exc.NoSuchColumnError: \"Could not locate column in row for column 'table.id'\"",
        "no-such-column",
        "https://newbetuts.com/407612-error-2006-mysql-server-has-gone-away",
    ),
    (
        "asyncmy.errors.OperationalError: (2013, 'Lost connection to MySQL server during query')",
        "mysql-lost-2013",
        "https://github.com/long2ice/meilisync/issues/83",
    ),
    (
        "I get `Lost connection to MySQL server during query` and I have no idea how to fix it",
        "mysql-lost-2013",
        "https://github.com/pallets-eco/flask-sqlalchemy/issues/536",
    ),
    (
        "[2019-10-11 11:06:32,967: ERROR/MainProcess] Unrecoverable error: "
        "InterfaceError(\"(0, '')\",)\n"
        "Traceback (most recent call last):\n"
        '  File "/srv/celery/worker/__init__.py", line 206, in start\n'
        "pymysql.err.InterfaceError: (0, '')",
        "mysql-already-closed",
        "https://github.com/celery/celery/issues/5774",
    ),
    (
        "mysql_1  | 2015-11-28T02:50:01.238745Z 3 [Note] Aborted connection 3 to db: "
        "'text_rocket' user: 'text_rocket' host: '172.17.0.4' (Got an error reading "
        "communication packets)",
        "mysql-log-aborted",
        "https://github.com/docker-library/mysql/issues/124",
    ),
    (
        "Apr  8 12:05:03 pfdeb9stable mysqld: 2021-04-08 12:05:03 140510194689792 [Warning] "
        "Aborted connection 2755 to db: 'pf' user: 'pf' host: 'localhost' (Got an error "
        "reading communication packets)                  │",
        "mysql-log-aborted",
        "https://github.com/inverse-inc/packetfence/issues/6276",
    ),
    (
        "OperationalError: (OperationalError) (20020, '\\x80/\\xab\\x03 DB-Lib error message "
        "20020, severity 9:\\nBad token from the server: Datastream processing out of $\n"
        "ync\\n') 'EXEC [dbo].[usp_Surveys_Survey_get_BySurveyID]",
        "freetds-out-of-sync",
        "https://github.com/pymssql/pymssql/issues/148",
    ),
    (
        "django.db.utils.OperationalError: ORA-03113: end-of-file on communication channel",
        "oracle-eof",
        "https://github.com/benoitc/gunicorn/issues/1953",
    ),
    (
        "'ORA-03113 end-of-file on communication channel'\n'ORA-01012 not logged on'",
        "oracle-eof",
        "https://github.com/yajra/laravel-oci8/issues/679",
    ),
    (
        "DatabaseError: ORA-01012: not logged on",
        "oracle-eof",
        "https://github.com/yajra/laravel-oci8/issues/679",
    ),
    (
        '"DPY-4005: timed out waiting for the connection pool to return a connection"',
        "oracledb-pool-timeout",
        "https://blog.youkuaiyun.com/gitblog_07737/article/details/148969839",
    ),
    (
        "[2022-09-30 09:46:16 -0700] [1] OperationalError: couldn't get a connection after 30.00 sec",
        "psycopg-pool-timeout",
        "https://github.com/dannyvfilms/Floppy/issues/341",
    ),
    (
        "Moving job to FailedJobRegistry\n"
        "Work-horse process was terminated unexpectedly (waitpid returned 11)",
        "child-segfault",
        "https://github.com/rq/rq/issues/1517",
    ),
    (
        "Work-horse was terminated unexpectedly (waitpid returned 11)",
        "child-segfault",
        "https://github.com/rq/rq/issues/1517",
    ),
    (
        "[ERROR/MainProcess] Process 'ForkPoolWorker-4' pid:4711 exited with 'signal 11 (SIGSEGV)'",
        "child-segfault",
        "https://github.com/celery/celery/issues/7007",
    ),
    (
        "billiard.exceptions.WorkerLostError: Worker exited prematurely: signal 11 (SIGSEGV).",
        "child-segfault",
        "https://github.com/celery/celery/issues/5867",
    ),
]

# (as pasted, the id among the texts with another cause, where)
COLLECTED_OTHERS = [
    (
        "sqlalchemy.exc.PendingRollbackError: This Session's transaction has been rolled back due to a previous "
        "exception during flush. To begin a new transaction with this Session, first issue Session.rollback().",
        "follows-an-earlier-error",
        "https://docs.sqlalchemy.org/en/20/faq/sessions.html",
    ),
    (
        "(sqlite3.OperationalError) database is locked\n[SQL: INSERT INTO jobs (name) VALUES (?)]",
        "sqlite-busy",
        "https://www.sqlite.org/rescode.html#busy",
    ),
    (
        "ERROR:app:Exception on /views/main_css/js/render_wiki.js [GET]\n"
        "Traceback (most recent call last):\n"
        '  File "C:\\app\\site-packages\\pymysql\\connections.py", line 692, in _read_packet\n'
        "    packet_header = self._read_bytes(4)\n"
        '  File "C:\\app\\site-packages\\pymysql\\connections.py", line 729, in _read_bytes\n'
        "    self._sock.settimeout(self._read_timeout)\n"
        "AttributeError: 'NoneType' object has no attribute 'settimeout'",
        "pymysql-concurrent-use",
        "https://github.com/openNAMU/openNAMU/issues/1292",
    ),
    (
        'File "/srv/disco/env_3.6/lib/python3.6/site-packages/pymysql/cursors.py", line 310, '
        "in _query\n"
        "    conn.query(q)\n"
        '  File "/srv/disco/env_3.6/lib/python3.6/site-packages/pymysql/connections.py", '
        "line 732, in _read_bytes\n"
        "    data = self._rfile.read(num_bytes)\n"
        "AttributeError: 'NoneType' object has no attribute 'read'",
        "pymysql-concurrent-use",
        "https://github.com/PyMySQL/PyMySQL/issues/1013",
    ),
    (
        "pymysql/connections.py line 215 in __recv_packet\n"
        "    recv_data = self.connection.rfile.read(bytes_to_read)\n"
        "AttributeError: 'NoneType' object has no attribute 'read' in pymysql/connections.py "
        "in __recv_packet",
        "pymysql-concurrent-use",
        "https://github.com/PyMySQL/PyMySQL/issues/147",
    ),
    (
        '  File "/srv/anaconda2/lib/python2.7/site-packages/pymysql/connections.py", line '
        "734, in close\n"
        "    sock.close()\n"
        "AttributeError: 'NoneType' object has no attribute 'close'",
        "pymysql-concurrent-use",
        "https://github.com/unbit/uwsgi/issues/1721",
    ),
    (
        "2023-02-19 21:17:06,670 682668 ERROR test.localodoo.com odoo.sql_db: bad query: "
        "SELECT payload FROM http_sessions WHERE "
        "sid='a521053dbdc20a0fd1cd5da007c3e721ansid...'\n"
        "ERROR: execute cannot be used while an asynchronous query is underway",
        "psycopg-concurrent-use",
        "https://github.com/OCA/server-tools/issues/2556",
    ),
    (
        "DBAPIError exception wrapped from (psycopg2.ProgrammingError) execute cannot be "
        "used while an asynchronous query is underway [SQL: 'SELECT 1']",
        "psycopg-concurrent-use",
        "https://github.com/psycopg/psycopg2/issues/703",
    ),
    (
        'File "/usr/local/lib/python3.2/dist-packages/momoko/connection.py", line 289, in '
        "execute\n"
        "cursor.execute(operation, parameters)\n"
        "psycopg2.ProgrammingError: execute cannot be used while an asynchronous query is "
        "underway",
        "psycopg-concurrent-use",
        "https://github.com/FSX/momoko/issues/51",
    ),
    (
        "sqlalchemy.exc.OperationalError: (psycopg.OperationalError) sending query failed: "
        "another command is already in progress\n"
        "another command is already in progress",
        "psycopg-concurrent-use",
        "https://github.com/psycopg/psycopg/issues/1198",
    ),
    (
        '‘DatabaseError("DatabaseWrapper objects created in a thread can only be used in '
        "that same thread. The object with alias \\'default\\’ was created in thread id "
        "139742333142032 and this is thread id 139742187524816.\",)'",
        "another-thread",
        "https://github.com/celery/django-celery/issues/402",
    ),
    (
        "sqlite3.ProgrammingError: SQLite objects created in a thread can only be used in "
        "that same thread.The object was created in thread id 140254450059008 and this is "
        "thread id 140253851752192\n"
        "Exception closing connection <sqlite3.Connection object at 0x7f8f821b7b90>",
        "another-thread",
        "https://github.com/steemit/sbds/issues/75",
    ),
    (
        "InvalidRequestError: This session is provisioning a new connection; concurrent "
        "operations are not permitted (Background on this error at: "
        "https://sqlalche.me/e/20/isce)",
        "session-concurrent-use",
        "https://github.com/dstackai/dstack/issues/2638",
    ),
    (
        "sqlalchemy.exc.IllegalStateChangeError: Method 'close()' can't be called here; "
        "method '_connection_for_bind()' is already in progress and this would cause an "
        "unexpected state change to <SessionTransactionState.CLOSED: 5>",
        "session-concurrent-use",
        "https://github.com/sqlalchemy/sqlalchemy/issues/10092",
    ),
    (
        "20019\n"
        "DB-Lib error message 20019, severity 7:\n"
        "Attempt to initiate a new Adaptive Server operation with results pending",
        "mssql-busy",
        "https://github.com/pymssql/pymssql/issues/419",
    ),
    (
        "TypeError: can't pickle pyodbc.Connection objects",
        "cannot-pickle",
        "https://github.com/mkleehammer/pyodbc/issues/446",
    ),
    (
        "TypeError: cannot pickle 'psycopg2.extensions.connection' object",
        "cannot-pickle",
        "another form of the same text",
    ),
    (
        "AttributeError: Can't pickle local object 'create_engine.<locals>.connect'",
        "cannot-pickle",
        "https://github.com/sqlalchemy/sqlalchemy/issues/10077",
    ),
    (
        "Fatal Error: Can't pickle <class 'sqlalchemy.orm.session.Session'>: it's not the "
        "same object as sqlalchemy.orm.session.Session",
        "cannot-pickle",
        "https://github.com/funilrys/PyFunceble/issues/301",
    ),
]

# In the form in which these programs print it; none is about a shared connection.
FRAME = 'Traceback (most recent call last):\n  File "/app/x.py", line 3, in <module>\n    main()\n'
COLLECTED_UNRELATED = [
    "[2019-10-11 11:06:32,967: ERROR/ForkPoolWorker-2] Error in timer: "
    "OperationalError(2002, \"Can't connect to local MySQL server through socket "
    "'/var/run/mysqld/mysqld.sock' (2)\")",
    "'einfo': <ExceptionInfo: OperationalError('could not fork new process for "
    "connection: Out of memory\\n\\ncould not fork new process for connection: Out of "
    "memory\\n')>} ForkPoolWorker-2",
    "airflow-c-qa4 airflow-scheduler psycopg2.errors.LockNotAvailable: could not obtain "
    'lock on row in relation "slot_pool"',
    "OperationalError: FATAL: la base de données « o » n'existe pas",
    "2014-06-16 12:17:56 [16051] [ERROR] Error handling request\n"
    + FRAME
    + "    environ['REMOTE_ADDR'] = client[0]\n"
    "IndexError: index out of range",
    FRAME + '  File "/srv/gunicorn/workers/sync.py", line 59, in run_for_one\n'
    "    listener = self.sockets[0]\n"
    "IndexError: list index out of range",
    "(OK) 2024-01-17 03:47:23.379 "
    'GMT,,,1355951,"::1:49288",65a74dcb.14b0af,1,"",2024-01-17 03:47:23 '
    'GMT,,0,LOG,08P01,"invalid length of startup packet",,,,,,,,,""',
    "2023-01-26 08:48:02.659 UTC [10] NOISE C-0x556518edfbf0: sfe/sfe@10.233.28.145:56298 read pkt='S' len=5",
    "2015-05-24 11:58:13.192 24481 WARNING S-0x8a677a0: "
    "npgsql_tests/npgsql_tests@127.0.0.1:5432 got packet 'S' from server when not linked",
    "2024-03-01 LOG C-0x55d: db/app@10.0.0.4:51442 closing because: client close request (age=12s)",
    "2024-03-01 LOG S-0x55d: db/app@10.0.0.4:5432 closing because: server idle timeout (age=601s)",
    "[Warning] Aborted connection 23366 to db: 'dbname' user: 'dbuser' host: 'localhost' "
    "(Got timeout reading communication packets)",
    "2024-05-01 10:00:00 7 [Warning] Aborted connection 7 to db: 'unconnected' user: "
    "'unauthenticated' host: '10.0.0.9' (This connection closed normally without "
    "authentication)",
    "2024-05-01 10:00:00 7 [Warning] Access denied for user 'root'@'localhost' (using password: NO)",
    "psycopg2.InterfaceError: only protocol 3 supported",
    "Moving job to FailedJobRegistry\nWork-horse process was terminated unexpectedly (waitpid returned None)",
    "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); \n11:20:14 default: job OK",
    "[2026-01-01 11:11:11 +0000] [7] [ERROR] Worker (pid:811) was sent SIGKILL! Perhaps out of memory?",
    "[CRITICAL] WORKER TIMEOUT (pid:11)",
    "DAMN ! worker 3 (pid: 18) died, killed by signal 9 :( trying respawn ...",
    FRAME + "psycopg2.ProgrammingError: no results to fetch",
    FRAME + "peewee.ProgrammingError: count(*) must be used to call a parameterless aggregate function",
    FRAME + "psycopg2.errors.InFailedSqlTransaction: current transaction is aborted, commands "
    "ignored until end of transaction block",
    "sqlalchemy.exc.InvalidRequestError: This Session's transaction has been rolled back "
    "due to a previous exception during flush.",
    FRAME + "botocore.exceptions.ClientError: An error occurred (AccessDenied) when calling the "
    "GetObject operation: Access Denied",
    FRAME + "botocore.exceptions.EndpointConnectionError: Could not connect to the endpoint URL: "
    '"https://s3.amazonaws.com/"',
    FRAME + "botocore.exceptions.SSLError: SSL validation failed for https://s3.amazonaws.com/b "
    "EOF occurred in violation of protocol (_ssl.c:1129)",
    FRAME + "kafka.errors.NoBrokersAvailable: NoBrokersAvailable",
    "%3|1638360000.123|FAIL|rdkafka#producer-1| [thrd:ssl://k:9093/bootstrap]: SSL "
    "handshake failed: error:0A000086:SSL routines::certificate verify failed",
    "%3|1638360000.123|ERROR|rdkafka#consumer-1| SSL transport error: ssl/tls alert bad record mac",
    "[2024-01-01 10:00:00,123] WARN [SocketServer] Unexpected error from /10.0.0.1; "
    "closing connection (org.apache.kafka.common.network.Selector) "
    "org.apache.kafka.common.errors.SslAuthenticationException: SSL handshake failed",
    "javax.net.ssl.SSLException: Received fatal alert: bad_record_mac",
    "com.mysql.cj.jdbc.exceptions.CommunicationsException: Communications link failure\n"
    "\n"
    "The last packet successfully received from the server was 1,203 milliseconds ago.",
    "org.postgresql.util.PSQLException: An I/O error occurred while sending to the "
    "backend.\n"
    "Caused by: java.io.EOFException",
    'org.postgresql.util.PSQLException: ERROR: prepared statement "S_3" already exists',
    "java.sql.SQLTransientConnectionException: HikariPool-1 - Connection is not "
    "available, request timed out after 30000ms.",
    'Exception in thread "main" java.lang.NullPointerException: Cannot invoke '
    '"String.length()" because "s" is null',
    "2026/01/01 10:00:00 [error] 31#31: *7 upstream prematurely closed connection while "
    "reading response header from upstream, client: 10.0.0.1",
    "2026/01/01 10:00:00 [error] 31#31: *7 recv() failed (104: Connection reset by peer) "
    "while reading response header from upstream",
    "2026/01/01 [info] 31#31: *8 SSL_read() failed (SSL: error:0A000126:SSL "
    "routines::unexpected eof while reading) while keepalive",
    "Warning  Unhealthy  2m  kubelet  Readiness probe failed: dial tcp 10.2.0.7:5432: "
    "connect: connection refused",
    "Back-off restarting failed container app in pod web-6d4cf56db6-x2x9k (exit code 139)",
    "Last State: Terminated  Reason: OOMKilled  Exit Code: 137",
    "E0101 10:00:00.000000       1 leaderelection.go:330] error retrieving resource "
    "lock: context deadline exceeded",
    FRAME + "redis.exceptions.ConnectionError: Error 104 while writing to socket. Connection reset by peer.",
    FRAME + "redis.exceptions.ConnectionError: Error while reading from localhost:6379 : (104, "
    "'Connection reset by peer')",
    FRAME + "redis.exceptions.BusyLoadingError: Redis is loading the dataset in memory",
    FRAME + "redis.exceptions.ReadOnlyError: You can't write against a read only replica.",
    FRAME + "kombu.exceptions.OperationalError: [Errno 104] Connection reset by peer",
    FRAME + "amqp.exceptions.ConnectionForced: (0, 0): (320) CONNECTION_FORCED - broker forced "
    "connection closure with reason 'shutdown'",
    FRAME + "amqp.exceptions.UnexpectedFrame: Received frame 206 while expecting type: 1",
    FRAME + "pika.exceptions.StreamLostError: Stream connection lost: ConnectionResetError(104, "
    "'Connection reset by peer')",
    FRAME + "elasticsearch.exceptions.ConnectionTimeout: ConnectionTimeout caused by - "
    "ReadTimeoutError(HTTPSConnectionPool(host='es', port=443))",
    FRAME + "grpc._channel._InactiveRpcError: <_InactiveRpcError of RPC that terminated with: "
    'status = StatusCode.UNAVAILABLE details = "Socket closed">',
    "E0101 10:00:00.000000000 7 fork_posix.cc:76] Other threads are currently calling "
    "into gRPC, skipping fork() handlers",
    FRAME + "paramiko.ssh_exception.SSHException: Error reading SSH protocol banner",
    FRAME + "smtplib.SMTPServerDisconnected: Connection unexpectedly closed",
    FRAME + "ftplib.error_temp: 421 Timeout.",
    FRAME + "ldap.SERVER_DOWN: {'desc': \"Can't contact LDAP server\"}",
    FRAME + "websockets.exceptions.ConnectionClosedError: no close frame received or sent",
    FRAME + "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed.",
    "ERROR: Unexpected segmentation fault encountered in worker.\n" + FRAME,
    FRAME + "sqlite3.OperationalError: database is locked",
    FRAME + "sqlite3.OperationalError: no such column: x",
    FRAME + "sqlite3.OperationalError: attempt to write a readonly database",
    FRAME + "sqlite3.InterfaceError: Error binding parameter 0 - probably unsupported type.",
    FRAME + "pyodbc.OperationalError: ('08001', '[08001] [Microsoft][ODBC Driver 18 for SQL "
    "Server]TCP Provider: Error code 0x2749 (10057) (SQLDriverConnect)')",
    FRAME + "pyodbc.OperationalError: ('08S01', '[08S01] [Microsoft][ODBC Driver 17 for SQL "
    "Server]TCP Provider: An existing connection was forcibly closed by the remote "
    "host.\\r\\n (10054) (SQLExecDirectW)')",
    FRAME + "pymssql.OperationalError: (1205, b'Transaction (Process ID 61) was deadlocked on "
    "lock resources')",
    FRAME + "pymysql.err.OperationalError: (1213, 'Deadlock found when trying to get lock; try "
    "restarting transaction')",
    FRAME + "pymysql.err.OperationalError: (3024, 'Query execution was interrupted, maximum "
    "statement execution time exceeded')",
    FRAME + "pymysql.err.OperationalError: (1317, 'Query execution was interrupted')",
    FRAME + "pymysql.err.OperationalError: (1290, 'The MySQL server is running with the "
    "--read-only option so it cannot execute this statement')",
    FRAME + "pymysql.err.OperationalError: (1053, 'Server shutdown in progress')",
    FRAME + "MySQLdb.OperationalError: (1927, 'Connection was killed')",
    FRAME + "MySQLdb.ProgrammingError: (1146, \"Table 'app.users' doesn't exist\")",
    FRAME + "mysql.connector.errors.DatabaseError: 2059 (HY000): Authentication plugin "
    "'caching_sha2_password' cannot be loaded",
    FRAME + "mysql.connector.errors.PoolError: Failed getting connection; pool exhausted",
    FRAME + "psycopg2.pool.PoolError: connection pool exhausted",
    FRAME + "psycopg_pool.TooManyRequests: the pool 'pool-1' has already 40 requests waiting",
    FRAME + "psycopg.errors.ReadOnlySqlTransaction: cannot execute INSERT in a read-only transaction",
    FRAME + "psycopg.errors.IdleInTransactionSessionTimeout: terminating connection due to "
    "idle-in-transaction timeout",
    FRAME + "psycopg2.OperationalError: terminating connection due to administrator command\n"
    "SSL connection has been closed unexpectedly\n",
    FRAME + 'psycopg2.OperationalError: connection to server at "db" (10.0.0.4), port 5432 '
    "failed: FATAL:  the database system is starting up",
    FRAME + 'psycopg2.OperationalError: could not translate host name "db" to address: Temporary '
    "failure in name resolution",
    FRAME + "psycopg2.errors.OutOfMemory: out of memory\nDETAIL:  Failed on request of size 1024.",
    FRAME + "psycopg2.errors.UndefinedFunction: operator does not exist: uuid = integer",
    FRAME + 'psycopg2.errors.InvalidCursorName: cursor "_django_curs_1401_sync_1" does not exist',
    FRAME + 'psycopg2.errors.DuplicateTable: relation "users" already exists',
    FRAME + "psycopg.OperationalError: connection is bad: no error details available",
    FRAME + "psycopg.errors.FeatureNotSupported: cached plan must not change result type",
    FRAME + "asyncpg.exceptions.InvalidCachedStatementError: cached statement plan is invalid "
    "due to a database schema or configuration change",
    FRAME + "asyncpg.exceptions.CannotConnectNowError: the database system is starting up",
    FRAME + "asyncpg.exceptions.ConnectionFailureError: ('unexpected connection_lost() call',)",
    FRAME + "oracledb.exceptions.OperationalError: DPY-6005: cannot connect to database "
    "(CONNECTION_ID=abc). [Errno 111] Connection refused",
    FRAME + "cx_Oracle.DatabaseError: ORA-12541: TNS:no listener",
    FRAME + "cx_Oracle.DatabaseError: DPI-1067: call timeout of 5000 ms exceeded with ORA-03156",
    FRAME + "cx_Oracle.DatabaseError: DPI-1047: Cannot locate a 64-bit Oracle Client library",
    FRAME + "pymongo.errors.AutoReconnect: connection pool paused",
    FRAME + "pymongo.errors.NetworkTimeout: db:27017: timed out",
    FRAME + "cassandra.cluster.NoHostAvailable: ('Unable to connect to any servers', {})",
    FRAME + "neo4j.exceptions.ServiceUnavailable: Failed to read from defunct connection",
    FRAME + "snowflake.connector.errors.OperationalError: 250001: Could not connect to Snowflake backend",
    FRAME + "google.api_core.exceptions.ServiceUnavailable: 503 failed to connect to all addresses",
    FRAME + "trino.exceptions.TrinoConnectionError: failed to execute: "
    "HTTPSConnectionPool(host='t', port=443): Read timed out.",
    FRAME + "multiprocessing.context.AuthenticationError: digest received was wrong",
    FRAME + "_pickle.UnpicklingError: pickle data was truncated",
    FRAME + "concurrent.futures.process.BrokenProcessPool: A child process terminated abruptly, "
    "the process pool is not usable anymore",
    FRAME + "TypeError: cannot pickle '_thread.lock' object",
    FRAME + "AttributeError: Can't pickle local object 'wrap_work_function_for_pipe.<locals>.closure'",
    FRAME + "RuntimeError: unable to perform operation on <TCPTransport closed=True "
    "reading=False 0x1fccbb8>; the handler is closed",
    FRAME + "AttributeError: 'NoneType' object has no attribute 'read'",
    FRAME + "subprocess.CalledProcessError: Command '['pg_dump']' died with <Signals.SIGSEGV: 11>.",
    FRAME + "django.db.utils.NotSupportedError: deferrable unique constraints",
    FRAME + "odoo.exceptions.ValidationError: The operation cannot be completed",
    FRAME + "psycopg2.OperationalError: Unable to use a closed cursor.",
    "SAWarning: The garbage collector is trying to clean up non-checked-in connection "
    "<AdaptedConnection>, which will be terminated.",
    "node: error: connection terminated unexpectedly at Connection.<anonymous> "
    "(/app/node_modules/pg/lib/client.js:132:73)",
    "Error: Connection lost: The server closed the connection.\n"
    "    at Protocol.end (/app/node_modules/mysql/lib/protocol/Protocol.js:112:13) code: "
    "'PROTOCOL_CONNECTION_LOST'",
    "Error: Packets out of order. Got: 2 Expected: 3\n"
    "    at Parser.write (/app/node_modules/mysql/lib/protocol/Parser.js:45:19)",
    "PHP Fatal error:  Uncaught PDOException: SQLSTATE[HY000] [2002] Connection refused "
    "in /var/www/db.php:12",
    "kernel: [123.4] python3[4711]: segfault at 0 ip 00007f sp 00007ffd error 4 in libpq.so.5.15",
    "systemd[1]: postgresql@15-main.service: Main process exited, code=exited, status=1/FAILURE",
    "git: error: RPC failed; curl 56 GnuTLS recv error (-24): Decryption has failed.",
    "openvpn[7]: TLS Error: incoming packet authentication failed from [AF_INET]1.2.3.4",
    "sshd[7]: error: kex_exchange_identification: Connection closed by remote host",
    "dockerd: read unix @->/run/docker.sock: use of closed network connection",
    "LOG:  checkpoints are occurring too frequently (11 seconds apart)",
    "ERROR:  canceling statement due to user request",
    "ERROR:  deadlock detected\n"
    "DETAIL:  Process 7 waits for ShareLock on transaction 811; blocked by process 9.",
    "LOG:  could not accept SSL connection: EOF detected",
    "LOG:  could not accept SSL connection: wrong version number",
    "LOG:  could not receive data from client: Connection timed out",
    "FATAL:  terminating connection due to conflict with recovery",
    "FATAL:  could not receive data from WAL stream: server closed the connection unexpectedly",
    "LOG:  unexpected EOF on standby connection",
    "FATAL:  could not receive data from WAL stream: SSL SYSCALL error: EOF detected",
    'pg_restore: error: could not execute query: ERROR:  relation "a" already exists',
    "pg_dump: error: query failed: ERROR:  permission denied for table users",
    'psql: error: connection to server on socket "/var/run/postgresql/.s.PGSQL.5432" '
    "failed: No such file or directory",
    "mysqldump: Got error: 2013: Lost connection to server at 'reading initial "
    "communication packet', system error: 0 when trying to connect",
]
