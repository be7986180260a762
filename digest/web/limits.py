"""How often one address may ask: token buckets in memory, for forms that make mail. A restart forgets them."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_CLIENTS = 10_000


class Bucket:
    """*burst* requests at once, then one every *every_s* seconds, for each client; the longest unseen is forgotten."""

    def __init__(self, burst: int, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._every, self._clock = burst, every_s, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → (tokens, when)
        self._lock = threading.Lock()

    def take(self, client: str) -> bool:
        """Whether this request may go on."""
        with self._lock:
            now = self._clock()
            left, when = self._left.pop(client, (float(self._burst), now))
            left = min(self._burst, left + (now - when) / self._every)
            granted = left >= 1
            self._left[client] = (left - granted, now)
            if len(self._left) > _MOST_CLIENTS:
                self._left.popitem(last=False)
            return granted


def client_key(address: str) -> str:
    """One household, one key: an IPv6 customer has a whole /64 to ask from."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
