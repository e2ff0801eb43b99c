"""Every finding by its id. An id is never given a second meaning: pipelines and suppressions name it.

RM00 files, RM01 values, RM02 identities, RM03 rules, RM04 actions and protocols, RM05 scopes and documents,
RM06 PeerAuthentication, RM07 RequestAuthentication. Each has a page beside this file, `pages/<id>.md`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Severity(enum.Enum):
    """How sure it is that a finding is a mistake.

    ERROR: what is written has no effect, or two documents contradict each other. WARNING: it has an effect that is
    probably not meant. INFO: it is worth knowing.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def weight(self) -> int:
        """Give a number that is larger for what is graver."""
        return {"error": 3, "warning": 2, "info": 1}[self.value]


class Entry(NamedTuple):
    """One finding: how grave it is, and its title."""

    severity: Severity
    title: str


LOAD_ERROR: Final = "RM0001"
"""What makes a set unusable; every fault of loading is shown under it."""

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

CATALOGUE: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        LOAD_ERROR: Entry(_ERROR, "a file that cannot be taken"),
        "RM0002": Entry(_INFO, "too many rules to compare each with each"),
        "RM0101": Entry(_WARNING, "a path prefix that does not end at a segment"),
        "RM0102": Entry(_WARNING, "a star inside a value"),
        "RM0103": Entry(_ERROR, "a path that does not begin with a slash"),
        "RM0104": Entry(_ERROR, "a path with a question mark or a number sign"),
        "RM0105": Entry(_ERROR, "a path that is not in normal form"),
        "RM0106": Entry(_WARNING, "a method in lower case"),
        "RM0107": Entry(_WARNING, "a host that slips by with a port"),
        "RM0108": Entry(_INFO, "an allowed host without its form with a port"),
        "RM0109": Entry(_INFO, "a value that another one of the list covers"),
        "RM0110": Entry(_WARNING, "an address block with bits behind its prefix"),
        "RM0111": Entry(_WARNING, "a header whose name has an underscore"),
        "RM0112": Entry(_WARNING, "remote addresses without trusted proxies"),
        "RM0113": Entry(_ERROR, "a server name with capitals"),
        "RM0201": Entry(_WARNING, "a principal of a foreign trust domain"),
        "RM0202": Entry(_WARNING, "an identity that nobody has"),
        "RM0203": Entry(_WARNING, "a namespace that does not exist"),
        "RM0204": Entry(_WARNING, "a principal that is not of the usual form"),
        "RM0205": Entry(_WARNING, "a negative identity that plaintext satisfies"),
        "RM0206": Entry(_WARNING, "a DENY by identity that plaintext evades"),
        "RM0207": Entry(_WARNING, "an identity cut in the middle of a name"),
        "RM0301": Entry(_ERROR, "clauses that exclude each other"),
        "RM0302": Entry(_ERROR, "a negative of everything"),
        "RM0303": Entry(_WARNING, "a rule for ports that are not served"),
        "RM0304": Entry(_WARNING, "a rule that another rule covers"),
        "RM0305": Entry(_WARNING, "an ALLOW rule that a DENY rule covers"),
        "RM0306": Entry(_WARNING, "a stray dash that turns AND into OR"),
        "RM0307": Entry(_INFO, "an ALLOW policy without rules"),
        "RM0308": Entry(_INFO, "a rule that matches everything"),
        "RM0401": Entry(_WARNING, "a DENY by HTTP that refuses other connections too"),
        "RM0402": Entry(_INFO, "a DENY by HTTP that names no ports"),
        "RM0403": Entry(_WARNING, "an ALLOW by HTTP on TCP ports"),
        "RM0404": Entry(_WARNING, "a dry run of an AUDIT policy"),
        "RM0405": Entry(_WARNING, "a dry run of what is in force already"),
        "RM0501": Entry(_ERROR, "two documents of one name"),
        "RM0502": Entry(_WARNING, "a selector that selects nothing"),
        "RM0503": Entry(_INFO, "a policy that does not select this workload"),
        "RM0504": Entry(_WARNING, "a policy of another namespace"),
        "RM0505": Entry(_WARNING, "an empty list of values"),
        "RM0506": Entry(_WARNING, "a document of another kind"),
        "RM0507": Entry(_WARNING, "a policy for gateways"),
        "RM0508": Entry(_WARNING, "an empty selector"),
        "RM0601": Entry(_ERROR, "two PeerAuthentications of one scope"),
        "RM0602": Entry(_WARNING, "a PeerAuthentication with a selector in the root namespace"),
        "RM0603": Entry(_WARNING, "a port mode for a port that is not served"),
        "RM0604": Entry(_INFO, "a PeerAuthentication that takes plaintext"),
        "RM0701": Entry(_WARNING, "tokens that nobody has to show"),
        "RM0702": Entry(_WARNING, "a rule about tokens without RequestAuthentication"),
        "RM0703": Entry(_WARNING, "a request principal of an issuer that is not configured"),
        "RM0704": Entry(_INFO, "a token for any audience"),
        "RM0705": Entry(_WARNING, "a rule about tokens that a request without token evades"),
        "RM0706": Entry(_WARNING, "a RequestAuthentication without issuers"),
        "RM0707": Entry(_WARNING, "a key that cannot be used"),
    }
)


def severity_of(code: str) -> Severity:
    """Say how grave a finding is by its id; what has no id is a fault of loading."""
    return CATALOGUE[code or LOAD_ERROR].severity
