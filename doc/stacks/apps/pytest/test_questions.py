import collections
import signal

import pytest
import sqlalchemy as sa


@pytest.mark.parametrize("first", range(4))
def test_sixty_questions(database, first, record_property):
    counts = collections.Counter()
    signal.alarm(8)  # a test that hangs is ended
    for number in range(first, 240, 4):
        try:
            with database.begin() as connection:
                answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
            counts["right" if answer == number else "wrong-row"] += 1
        except sa.exc.SQLAlchemyError as error:
            counts["error"] += 1
            print(error)
    signal.alarm(0)
    record_property("counts", dict(counts))
    assert counts == {"right": 60}
