"""Imported once, by the process that forks one for each reproduction: the drivers take seconds to import."""

import sqlalchemy as sa

from poolfork.drivers import DRIVERS
from poolfork.reproduce import all_reproductions

for _each in all_reproductions().values():
    if _each.missing() is None and _each.driver in DRIVERS:
        sa.make_url(f"{DRIVERS[_each.driver].dialect}://").get_dialect().import_dbapi()
