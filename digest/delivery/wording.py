"""The words in which servers tell why a mail was refused, and the enhanced status (RFC 3463) that they amount to.

First that fits, in this order: what is about the sender is asked before what is about the address, so that "user
unknown to our blocklist" suppresses nobody; a full mailbox before an unknown one, for it is often called "unavailable".
A status that begins with 4 stands; of the others only the last two figures do: whether it is final, the code says.
"""

from __future__ import annotations

import re

_MEANINGS = (
    (
        "5.2.2",
        r"mailbox (is |was )?(already )?(full|over)"
        r"|over ?(the )?(its )?(disk )?quota"
        r"|quota (is )?(exceed|full)"
        r"|exceed\w*( \w+){0,4} (quota|storage|space|mailbox)"
        r"|(mailbox|inbox|account|user)( \w+){0,3} (is full|exceed)"
        r"|not enough (storage|space|disk)"
        r"|insufficient (disk|storage|system storage)"
        r"|no (space|room) left"
        r"|mailfolder is full"
        r"|boite.{0,20}pleine"
        r"|box.{0,10}voll"
        r"|over the maximum allowed"
        r"|too much mail data"
        r"|disk full"
    ),
    (
        "4.4.3",
        r"(not found|no such|unknown|lookup|failure).{0,20}try (it )?(again|later)"
        r"|temporary (dns|name|lookup)"
    ),
    (
        "5.3.4",
        r"(message|mail|size).{0,25}(too (large|big)|exceed\w*.{0,30}(size|limit|maximum))"
        r"|size limit"
        r"|maximum.{0,20}size"
        r"|exceeds? (the )?(max|size|fixed)"
    ),
    (
        "5.7.1",
        r"spam"
        r"|black ?list"
        r"|block ?list"
        r"|blocked"
        r"|\brbls?\b"
        r"|spamhaus"
        r"|reputation"
        r"|\bspf\b"
        r"|\bdkim\b"
        r"|dmarc"
        r"|policy"
        r"|not allowed to"
        r"|access denied"
        r"|relay(ing)? (access )?(is )?(denied|prohibit|not)"
        r"|not permitted"
        r"|unauthori[sz]ed"
        r"|authenticat"
        r"|reverse dns"
        r"|ptr record"
        r"|sender (address )?(rejected|denied|verif|domain)"
        r"|banned"
        r"|virus"
        r"|content (filter|reject)"
        r"|refused by"
        r"|rejected (for|by) (filter|content|security)"
        r"|suspicious"
        r"|prohibited"
        r"|unsolicited"
        r"|poor"
        r"|verification failed"
        r"|no ptr"
        r"|your (ip|host|domain)"
        r"|invalid domain name"
        r"|dnsbl"
        r"|bad helo"
        r"|helo"
        r"|forged"
        r"|message (was )?rejected"
        r"|trend micro"
    ),
    (
        "5.1.1",
        r"(user|recipient|mailbox|address(ee)?|account|alias|utilisateur"
        r"|empf.nger)\b.{0,60}\b(unknown|not (found|exist|here|listed|known|valid|active|a (known|valid))"
        r"|does ?n.t exist|does not exist|doesnt exist|no longer|inconnu|invalid|unbekannt|undefined"
        r"|not in|disabled|deactivated|inactive|expired|terminated|suspended)"
    ),
    (
        "5.1.1",
        r"(unknown|no such|invalid|illegal|bad|not? (a )?(known|valid|local)|nonexist\w*"
        r"|non-exist\w*|undeliverable|unrecogni[sz]ed|incorrect|inactive|disabled) (\w+ ){0,2}(user"
        r"|recipient|mailbox|address|account|local.?part|person|name|alias|mail drop)"
    ),
    (
        "5.1.1",
        r"user(name)? (is )?unknown"
        r"|unknown user"
        r"|no mailbox"
        r"|addressee unknown"
        r"|does not have an? .{0,20}account"
        r"|isn.t (in|here)"
        r"|is not a (known|valid|subscriber)"
        r"|not our customer"
        r"|no account"
        r"|no longer (on|with|valid|active|works?|available|accept)"
        r"|has (been )?(moved|left|closed)"
        r"|this (user|address|account) (no longer|does|has)"
        r"|unrouteable address"
        r"|delivery.{0,12}to the following.{0,80}(permanent|failed)"
        r"|deleted"
        r"|not in (my|directory)"
        r"|adresse.{0,30}(inconnue|existe)"
        r"|existiert nicht"
        r"|not a valid mailbox"
        r"|couldn.t be found"
        r"|wasn.t found"
    ),
    (
        "5.1.2",
        r"(host|domain|name server|mx|dns|site|server)\b.{0,40}(unknown|not (found|exist)|does(n.t"
        r"| not) exist|no mx|lookup|could ?n.t (be )?f(ou|i)nd)"
        r"|no (mx|such host|such domain|route)"
        r"|unknown (host|domain)"
        r"|unroutable"
        r"|nxdomain"
        r"|bad (destination )?(host|system|domain)"
        r"|can.t find"
        r"|cannot find (any|your)"
        r"|illegal host"
    ),
    (
        "5.4.6",
        r"too many hops"
        r"|loop"
        r"|routing"
        r"|hop count"
    ),
    (
        "4.4.1",
        r"timed? ?out"
        r"|connection (was )?(refused|lost|reset|drop|terminat|closed)"
        r"|unreachable"
        r"|could ?n.t connect"
        r"|no answer"
        r"|cannot connect"
        r"|can.t connect"
        r"|not responding"
        r"|expired"
        r"|retry time"
        r"|too (old|long)"
        r"|giving up"
        r"|unable to connect"
        r"|has been in queue"
    ),
    (
        "4.2.0",
        r"greylist"
        r"|gr[ae]y ?list"
        r"|try again"
        r"|temporar"
        r"|too many"
        r"|rate limit"
        r"|throttl"
        r"|resources"
        r"|unavailable"
        r"|busy"
        r"|system problem"
    ),
)  # fmt: skip
_WORDS = tuple((re.compile(f"(?i){pattern}"), status) for status, pattern in _MEANINGS)
#: Some servers say 5.1.1 of all they refuse; these words then say what it was.
_CONTRADICTS = re.compile(r"(?i)spamhaus|black ?list|block ?list|dnsbl|over ?quota|mailbox (is )?full|quota exceeded")


def meaning(text: str) -> str | None:
    """The status that the words of *text* amount to; None: they are not known."""
    return next((status for pattern, status in _WORDS if pattern.search(text)), None)


def contradicts(text: str) -> bool:
    """Whether *text* speaks of a full mailbox or of us, whatever status stands beside it."""
    return bool(_CONTRADICTS.search(text))
