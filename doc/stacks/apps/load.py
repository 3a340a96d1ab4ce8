"""Ask a web app many questions at once and count the answers: ``python load.py http://127.0.0.1:8000``.

Every request asks ``/?n=NUMBER`` with another number; the right answer is that number.
It waits at most half a minute for the app to answer at all, and stops at the first question that gets no answer.
"""

import collections
import http.client
import sys
import threading
import time
import urllib.error
import urllib.request

url = sys.argv[1].rstrip("/")
requests = int(sys.argv[2]) if len(sys.argv) > 2 else 240
clients, patience = 8, 5
counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
hung = threading.Event()  # one is enough of a proof


def ask(number, timeout=patience):
    try:
        with urllib.request.urlopen(f"{url}/?n={number}", timeout=timeout) as response:
            return "right" if response.read().strip() == str(number).encode() else "wrong-row"
    except TimeoutError:
        return "hang"
    except urllib.error.HTTPError:
        return "error"  # the app answered with an error of its own
    except (OSError, http.client.HTTPException) as error:
        return "hang" if "timed out" in str(error) else "error"


def wait_until_up():
    until = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"{url}/?n=0", timeout=30).close()
            return
        except (urllib.error.HTTPError, TimeoutError):
            return  # it answers, or is there and does not: the load will tell
        except (OSError, http.client.HTTPException):
            if time.monotonic() > until:
                sys.exit(f"{url} does not answer")
            time.sleep(0.1)


def client(first):
    for number in range(first, requests, clients):
        if hung.is_set():
            return
        found = ask(number)
        counts[found] += 1
        if found == "hang":
            hung.set()


wait_until_up()
threads = [threading.Thread(target=client, args=[first]) for first in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(" | ".join(f"{word} {count}" for word, count in counts.items()))
