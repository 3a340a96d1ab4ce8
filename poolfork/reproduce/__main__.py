"""``python -m poolfork.reproduce [PART ...]``: produce the texts whose function's or symptom's name has a part."""

from __future__ import annotations

import signal
import sys

from poolfork.explain import explain
from poolfork.reproduce import all_reproductions
from poolfork.reproduce.places import Places
from poolfork.reproduce.play import text
from poolfork.reproduce.stage import NotShown
from poolfork.servers import ServerError


def main(parts: list[str]) -> int:
    """Run and print; the exit code is 1 if one did not come about, 2 if no name has such a part."""
    chosen = [
        one
        for one in all_reproductions().values()
        if not parts or any(part in f"{one.name} {one.symptom}" for part in parts)
    ]
    if not chosen:
        print(f"poolfork.reproduce: no reproduction is called like {' '.join(parts)}", file=sys.stderr)
        return 2
    failed = 0
    with Places() as places:
        for one in chosen:
            print(f"{one.symptom}: {one.name}")
            try:
                if missing := one.missing():
                    raise ServerError(missing)
                said = text(one, places(one.server, one.tls))
            except ServerError as error:
                print(f"    not here: {error}")
                continue
            except NotShown as error:
                print(f"    DID NOT COME ABOUT: {error}")
                failed += 1
                continue
            first = [match.symptom["id"] for match in explain(said).matches][:1]
            print("    " + said.replace("\n", "\n    "))
            if first != [one.symptom]:
                print(f"    EXPLAINED AS {first}")
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
