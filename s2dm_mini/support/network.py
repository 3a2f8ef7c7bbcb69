"""Whether a host answers: downloads ask first, so that a machine without a network says so within seconds."""
import socket
from contextlib import suppress
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def answers(url: str, seconds: float = 8) -> bool:
    """Whether the URL's host, or the proxy that leads to it, takes a connection within the seconds.

    In a thread, because the look-up of a name has no time limit: where packets vanish it takes half a minute.
    """
    target, proxy = urlsplit(url), getproxies().get(urlsplit(url).scheme)
    if proxy and not proxy_bypass(target.hostname):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    place, answered = (target.hostname, target.port or (443 if target.scheme == "https" else 80)), []

    def connect() -> None:
        with suppress(OSError), socket.create_connection(place, seconds):
            answered.append(True)

    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answered)
