"""Ask a web app many questions at once and count the answers: ``python load.py http://127.0.0.1:8000``.

Every request asks ``/?n=NUMBER`` with another number; the right answer is that number.
"""

import collections
import sys
import threading
import urllib.error
import urllib.request

url = sys.argv[1].rstrip("/")
requests, clients = 240, 8
counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})


def ask(number):
    try:
        with urllib.request.urlopen(f"{url}/?n={number}", timeout=5) as response:
            return "right" if response.read().strip() == str(number).encode() else "wrong-row"
    except TimeoutError:
        return "hang"
    except urllib.error.HTTPError:
        return "error"  # the app answered with an error of its own
    except (OSError, urllib.error.URLError) as error:
        return "hang" if "timed out" in str(error) else "error"


def client(first):
    for number in range(first, requests, clients):
        found = ask(number)
        counts[found] += 1
        if found == "hang":
            return  # one wait of five seconds is enough of a proof


threads = [threading.Thread(target=client, args=[first]) for first in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(" | ".join(f"{word} {count}" for word, count in counts.items()))
