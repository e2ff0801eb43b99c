"""Makes, reads, writes and judges keys. A private key leaves this module only as a key or as PEM that was asked for.

Errors here never quote what they were given: a message about a key file must be safe to print.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
"""The kinds of private key that an identity or an authority may have."""

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

MIN_RSA_BITS = 2048
"""NIST SP 800-57: 112 bits of strength. Fewer can be factored by a patient attacker; more is slower to sign."""

CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""NIST P-256, P-384 and P-521: the curves that TLS 1.3 can sign with."""

_USE = "use P-256, P-384, P-521, Ed25519 or RSA of 2048 bits or more"


class KeyFileError(ValueError):
    """A key that cannot be read or is not good enough; the message never holds any of the key."""


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Makes a fresh P-256 key: fast to sign with, and every TLS peer takes it.

    >>> key_fault(generate_key().public_key()) is None
    True
    """
    return ec.generate_private_key(ec.SECP256R1())


def key_fault(public_key: object) -> str | None:
    """Says why a public key is not strong enough for an identity, None when it is."""
    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size < MIN_RSA_BITS:
            return f"an RSA key of {public_key.key_size} bits is too short; {_USE}"
        return None
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if public_key.curve.name not in CURVES:
            return f"a key on the curve {public_key.curve.name} is not accepted; {_USE}"
        return None
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return None
    return f"a key of this kind ({type(public_key).__name__.removesuffix('PublicKey')}) is not accepted; {_USE}"


def describe_key(public_key: object) -> str:
    """Names a public key for a person: `P-256`, `RSA 2048`, `Ed25519`.

    >>> describe_key(generate_key().public_key())
    'P-256'
    """
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"RSA {public_key.key_size}"
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        name = public_key.curve.name
        return {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(name, name)
    return type(public_key).__name__.removesuffix("PublicKey").lstrip("_")


def signing_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """Chooses the hash to sign a certificate with: as strong as the key, None for Ed25519, which brings its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384() if key.curve.key_size <= 384 else hashes.SHA512()
    return hashes.SHA256()


def public_key_bytes(key: PublicKey) -> bytes:
    """Writes a public key as DER SubjectPublicKeyInfo: two keys are the same when these bytes are."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def write_key(key: PrivateKey) -> bytes:
    """Writes a private key as unencrypted PKCS#8 PEM, for a file that only its owner may read."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> PrivateKey:
    """Reads one unencrypted private key from PEM.

    Raises KeyFileError when it cannot be read, is encrypted, or is of a kind or size that no identity may have.

    >>> type(read_key(write_key(generate_key()))).__name__
    'ECPrivateKey'
    """
    if pem.count(b"-----BEGIN ") == 0:
        raise KeyFileError("it holds no PEM; write the private key as PKCS#8 PEM")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise KeyFileError(
            "the key is encrypted; write it without a passphrase, readable by its owner alone "
            "(`openssl pkey -in FILE -out PLAIN` does)"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # `from None`: the cause may quote the input.
        raise KeyFileError("it holds no readable private key; write one as PKCS#8 PEM") from None
    fault = key_fault(key.public_key())
    if fault is not None:
        raise KeyFileError(fault)
    if not isinstance(key, PrivateKey):
        raise KeyFileError(f"it is of a kind that cannot sign here; {_USE}")
    return key
