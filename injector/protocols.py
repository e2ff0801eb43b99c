"""Names of ports and `appProtocol` -> the protocol that a sidecar reads at the port, by Istio's convention."""

from __future__ import annotations

from typing import Final

BY_NAME: Final = {
    "http": "http",
    "http2": "tcp",
    "grpc": "tcp",
    "grpc-web": "http",
    "https": "tcp",
    "tls": "tcp",
    "tcp": "tcp",
    "mongo": "tcp",
    "mysql": "tcp",
    "redis": "tcp",
}
"""HTTP/2 and gRPC are carried as bytes: the sidecar reads HTTP/1.1 alone so far, and would refuse their preface."""

BY_APP_PROTOCOL: Final = BY_NAME | {
    "kubernetes.io/h2c": "tcp",
    "kubernetes.io/ws": "http",
    "kubernetes.io/wss": "tcp",
    "ws": "http",
    "wss": "tcp",
}
AUTO: Final = "auto"


def protocol_of(name: str, app_protocol: str = "") -> str:
    """Say what is read at a port: by `appProtocol`, else by the name (a word, or a word and `-`), else `auto`.

    >>> protocol_of("http-web"), protocol_of("web"), protocol_of("web", "redis"), protocol_of("grpc-web-ui")
    ('http', 'auto', 'tcp', 'http')
    """
    if app_protocol:
        return BY_APP_PROTOCOL.get(app_protocol.lower(), AUTO)
    for word in sorted(BY_NAME, key=len, reverse=True):
        if name == word or name.startswith(word + "-"):
            return BY_NAME[word]
    return AUTO
