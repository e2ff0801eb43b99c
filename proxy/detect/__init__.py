"""What the first bytes of a connection say: TLS, HTTP/1, HTTP/2 or something opaque. Pure; takes nothing away."""

from proxy.detect.first_bytes import Detected, detect
from proxy.detect.opening import Opening, Opens, judge_opening

__all__ = ["Detected", "Opening", "Opens", "detect", "judge_opening"]
