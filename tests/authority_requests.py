"""Makes the signing requests that tests/corpus/authority/requests.yaml names, right and wrong.

Keys are made once. What no builder makes is assembled from DER by hand.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from certs.keys import generate_key, write_key
from certs.profile import key_usage
from certs.testing import MemoryAuthority

PAYMENTS: Final = "spiffe://cluster.local/ns/demo/sa/payments"
KEY: Final = generate_key()
OTHER_KEY: Final = generate_key()

_SHA1: Final = bytes.fromhex("300906072a8648ce3d0401")
_SHA224: Final = bytes.fromhex("300a06082a8648ce3d040301")
_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")
_RSA: Final = bytes.fromhex("300d06092a864886f70d0101010500")


def der(tag: int, *contents: bytes) -> bytes:
    """Writes one DER value of short or long form."""
    content = b"".join(contents)
    size = (len(content).bit_length() + 7) // 8
    head = bytes((len(content),)) if len(content) < 0x80 else bytes((0x80 | size,)) + len(content).to_bytes(size, "big")
    return bytes((tag,)) + head + content


def assembled(spki: bytes, *, version: int = 0, algorithm: bytes = _SHA256, sign: bool = True) -> bytes:
    """Assembles a PKCS#10 request for any SubjectPublicKeyInfo, signed by KEY (RFC 2986 section 4)."""
    info = der(0x30, der(0x02, bytes((version,))), der(0x30), spki, der(0xA0))
    chosen = {_SHA1: hashes.SHA1(), _SHA224: hashes.SHA224(), _SHA256: hashes.SHA256()}[algorithm]
    signature = KEY.sign(info, ec.ECDSA(chosen)) if sign else b""
    return der(0x30, info, algorithm, der(0x03, b"\0", signature))


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def compressed_spki() -> bytes:
    """Spells KEY with a compressed point (RFC 5480 section 2.2): the same key in other bytes."""
    point = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    algorithm = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    return der(0x30, algorithm, der(0x03, b"\0", point))


def _pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(Encoding.PEM).decode("ascii")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _builder(common_name: str = "") -> x509.CertificateSigningRequestBuilder:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))


def _of_key(key: object) -> str:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return _pem(_builder().sign(key, algorithm))  # type: ignore[arg-type]


def _with(extension: x509.ExtensionType, *, critical: bool = False) -> str:
    return _pem(_builder().add_extension(extension, critical=critical).sign(KEY, hashes.SHA256()))


def _sans(*names: x509.GeneralName) -> str:
    return _with(x509.SubjectAlternativeName(names))


def _rsa_spki(bits: int) -> bytes:
    modulus = der(0x02, b"\0" + b"\xff" * (bits // 8))
    return der(0x30, _RSA, der(0x03, b"\0", der(0x30, modulus, der(0x02, b"\x01\0\x01"))))


def _flipped(raw: bytes, offset: int) -> bytes:
    changed = bytearray(raw)
    changed[offset] ^= 1
    return bytes(changed)


@functools.cache
def plain() -> x509.CertificateSigningRequest:
    return _builder().sign(KEY, hashes.SHA256())


def plain_der() -> bytes:
    return plain().public_bytes(Encoding.DER)


def _leaf() -> x509.Certificate:
    return MemoryAuthority("cluster.local").svid("demo", "orders").leaf


RECIPES: Final[dict[str, Callable[[], str]]] = {
    "p256": lambda: _pem(plain()),
    "base64_der": lambda: _base64(plain_der()),
    "base64_lines": lambda: base64.encodebytes(plain_der()).decode("ascii"),
    "crlf": lambda: _pem(plain()).replace("\n", "\r\n"),
    "rsa_2048": lambda: _of_key(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "ed25519": lambda: _of_key(ed25519.Ed25519PrivateKey.generate()),
    "another_uri": lambda: _sans(x509.UniformResourceIdentifier(PAYMENTS)),
    "another_common_name": lambda: _pem(_builder("payments").sign(KEY, hashes.SHA256())),
    "ca_true": lambda: _with(x509.BasicConstraints(ca=True, path_length=None), critical=True),
    "extra_sans": lambda: _sans(
        x509.UniformResourceIdentifier(PAYMENTS), x509.DNSName("payments.demo.svc"), x509.RFC822Name("root@localhost")
    ),
    "cert_sign": lambda: _with(key_usage(key_cert_sign=True, crl_sign=True), critical=True),
    "server_auth_alone": lambda: _with(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])),
    "unknown_extension": lambda: _with(
        x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.1"), b"\xff"), critical=True
    ),
    "challenge_password": lambda: _pem(
        _builder().add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"let me in").sign(KEY, hashes.SHA256())
    ),
    "huge": lambda: _sans(*(x509.DNSName(f"name-{number}.example") for number in range(800))),
    "truncated": lambda: _base64(plain_der()[:-9]),
    "trailing": lambda: _base64(plain_der() + b"\0"),
    "version_2": lambda: _base64(assembled(spki(KEY), version=2)),
    "certificate": lambda: _leaf().public_bytes(Encoding.PEM).decode("ascii"),
    "certificate_der": lambda: _base64(_leaf().public_bytes(Encoding.DER)),
    "private_key": lambda: write_key(OTHER_KEY).decode("ascii"),
    "with_private_key": lambda: _pem(plain()) + write_key(OTHER_KEY).decode("ascii"),
    "two": lambda: _pem(plain()) * 2,
    "text_before": lambda: "Certificate Request:\n" + _pem(plain()),
    "signature_wrong": lambda: _base64(_flipped(plain_der(), -1)),
    "signed_by_another": lambda: _base64(assembled(spki(OTHER_KEY))),
    "key_replaced": lambda: _base64(plain_der().replace(spki(KEY), spki(OTHER_KEY))),
    "sha1": lambda: _base64(assembled(spki(KEY), algorithm=_SHA1)),
    "sha224": lambda: _base64(assembled(spki(KEY), algorithm=_SHA224)),
    "signature_absent": lambda: _base64(assembled(spki(KEY), sign=False)),
    "rsa_1024": lambda: _of_key(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
    "rsa_exponent_3": lambda: _of_key(rsa.generate_private_key(public_exponent=3, key_size=2048)),
    "rsa_16384": lambda: _base64(assembled(_rsa_spki(16384))),
    "p224": lambda: _of_key(ec.generate_private_key(ec.SECP224R1())),
    "secp256k1": lambda: _of_key(ec.generate_private_key(ec.SECP256K1())),
    "ed448": lambda: _of_key(ed448.Ed448PrivateKey.generate()),
    "dsa": lambda: _of_key(dsa.generate_private_key(key_size=1024)),
    "unknown_key": lambda: _base64(assembled(spki(KEY).replace(bytes.fromhex("2a8648ce3d0201"), b"\x2a" * 7))),
    "point_off_the_curve": lambda: _base64(assembled(_flipped(spki(KEY), -1))),
    "compressed_point": lambda: _base64(assembled(compressed_spki())),
}
