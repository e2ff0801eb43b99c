"""Every certificate that must be refused, one function each, with the reason that a peer must find.

The functions take a `MemoryAuthority` and return an `Svid`: a chain and a key with which a real handshake can be
tried. `BROKEN` lists them for tests that go through all of them; the verifier of such a test trusts
`MemoryAuthority.bundles`, which is our own trust domain and one neighbour.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from certs.authority import Svid
from certs.memory import MemoryAuthority, Shape, tampered
from certs.profile import SignerShape, key_usage, sign_signer

_NAMESPACE, _ACCOUNT = "demo", "rogue"
_BAD, _UNKNOWN_CA, _UNSUPPORTED = "bad_certificate", "unknown_ca", "unsupported_certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenCase:
    """One broken certificate: how to make it, the word of the reason, the TLS alert that its owner sees."""

    make: Callable[[MemoryAuthority], Svid]
    reason_word: str
    alert: str
    description: str


# --- the name (identity-rules L1 to L4) ---


def no_subject_alt_name(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(), subject=_common_name("orders"))


def dns_name_with_spiffe_text(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(), dns_names=(_id(authority),))


def common_name_with_spiffe_text(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(), subject=_common_name(_id(authority).decode("ascii")))


def two_uris_distinct(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(_id(authority), _id(authority) + b"-too"))


def two_uris_identical(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(_id(authority), _id(authority)))


def spiffe_and_https_uri(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(_id(authority), b"https://cluster.local/ns/demo/sa/rogue"))


def root_path(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(f"spiffe://{authority.trust_domain}".encode("ascii"),))


def san_not_critical_with_empty_subject(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, san_critical=False)


# --- what the key may be used for (L5 to L9) ---


def leaf_is_ca(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, ca=True, subject=_common_name("rogue"))


def may_sign_certificates(authority: MemoryAuthority) -> Svid:
    return _with_usage(authority, key_usage(digital_signature=True, key_cert_sign=True))


def may_sign_crls(authority: MemoryAuthority) -> Svid:
    return _with_usage(authority, key_usage(digital_signature=True, crl_sign=True))


def may_sign_certificates_and_crls(authority: MemoryAuthority) -> Svid:
    return _with_usage(authority, key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True))


def no_digital_signature(authority: MemoryAuthority) -> Svid:
    usage = x509.KeyUsage(
        digital_signature=False,
        key_agreement=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return _with_usage(authority, usage)


def no_key_usage(authority: MemoryAuthority) -> Svid:
    return _with_usage(authority, None)


def key_usage_not_critical(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, key_usage_critical=False)


def server_auth_only(authority: MemoryAuthority) -> Svid:
    return _with_purposes(authority, ExtendedKeyUsageOID.SERVER_AUTH)


def client_auth_only(authority: MemoryAuthority) -> Svid:
    return _with_purposes(authority, ExtendedKeyUsageOID.CLIENT_AUTH)


def code_signing_only(authority: MemoryAuthority) -> Svid:
    return _with_purposes(authority, ExtendedKeyUsageOID.CODE_SIGNING)


def rsa_1024(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, key="rsa-1024")


# --- time ---


def expired(authority: MemoryAuthority) -> Svid:
    begin, end = authority.now - datetime.timedelta(days=2), authority.now - datetime.timedelta(days=1)
    return authority.svid(_NAMESPACE, _ACCOUNT, not_before=begin, not_after=end)


def not_yet_valid(authority: MemoryAuthority) -> Svid:
    begin, end = authority.now + datetime.timedelta(days=1), authority.now + datetime.timedelta(days=2)
    return authority.svid(_NAMESPACE, _ACCOUNT, not_before=begin, not_after=end)


# --- the chain ---


def intermediate_as_leaf(authority: MemoryAuthority) -> Svid:
    """L10: a signing certificate authenticates nobody."""
    return Svid(chain=(authority.intermediate,), key=authority.intermediate_key)


def foreign_root(authority: MemoryAuthority) -> Svid:
    """Our name, our trust domain, our authority's very subject names; another authority's key."""
    return authority.impostor.svid(_NAMESPACE, _ACCOUNT)


def unknown_trust_domain(authority: MemoryAuthority) -> Svid:
    return authority.stranger.svid(_NAMESPACE, _ACCOUNT)


def our_name_signed_by_neighbour(authority: MemoryAuthority) -> Svid:
    """The neighbour's root is trusted, for the neighbour's names; here it vouches for one of ours."""
    return authority.neighbour.svid(_NAMESPACE, _ACCOUNT, uris=(_id(authority),))


def neighbours_name_signed_by_us(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(_id(authority.neighbour),))


def self_signed(authority: MemoryAuthority) -> Svid:
    key = authority.key("self-signed")
    self_shape = SignerShape(
        trust_domain=authority.trust_domain, name="self", lifetime=datetime.timedelta(days=1), path_length=0
    )
    # Only its subject and its key matter: the leaf below claims to be issued by itself.
    twin = sign_signer(self_shape, key.public_key(), None, key, authority.now)
    return authority.svid(
        _NAMESPACE, _ACCOUNT, key="self-signed", subject=twin.subject, issuer=twin, issuer_key=key, chain=()
    )


def missing_intermediate(authority: MemoryAuthority) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, chain=())


def wrong_signature(authority: MemoryAuthority) -> Svid:
    good = authority.svid(_NAMESPACE, _ACCOUNT)
    return Svid(chain=(tampered(good.leaf), *good.chain[1:]), key=good.key)


def signed_by_a_leaf(authority: MemoryAuthority) -> Svid:
    """A workload plays authority with its own key."""
    workload = authority.svid(_NAMESPACE, "orders", subject=_common_name("orders"))
    chain = (workload.leaf, authority.intermediate)
    return authority.svid(_NAMESPACE, _ACCOUNT, issuer=workload.leaf, issuer_key=workload.key, chain=chain)


def signed_by_ca_without_cert_sign(authority: MemoryAuthority) -> Svid:
    return _under(authority, ca=True, key_usage=key_usage(digital_signature=True))


def signed_by_ca_with_path_in_its_id(authority: MemoryAuthority) -> Svid:
    return _under(authority, ca=True, key_usage=key_usage(key_cert_sign=True), uris=(_id(authority),))


def signed_by_ca_with_usage_not_critical(authority: MemoryAuthority) -> Svid:
    return _under(authority, ca=True, key_usage=key_usage(key_cert_sign=True), key_usage_critical=False)


def path_length_exceeded(authority: MemoryAuthority) -> Svid:
    """The intermediate signs another CA, which its pathLen 0 forbids."""
    return _under(
        authority,
        ca=True,
        key_usage=key_usage(key_cert_sign=True),
        issuer=authority.intermediate,
        issuer_key=authority.intermediate_key,
    )


def name_constraint_violated(authority: MemoryAuthority) -> Svid:
    """The signer is bound to names of another host."""
    constraint = x509.NameConstraints([x509.UniformResourceIdentifier("elsewhere.example")], None)
    return _under(authority, ca=True, key_usage=key_usage(key_cert_sign=True), extensions=((constraint, True),))


def expired_intermediate(authority: MemoryAuthority) -> Svid:
    begin, end = authority.now - datetime.timedelta(days=2), authority.now - datetime.timedelta(days=1)
    usage = key_usage(key_cert_sign=True)
    return _under(authority, ca=True, key_usage=usage, not_before=begin, not_after=end)


def unknown_critical_extension(authority: MemoryAuthority) -> Svid:
    """RFC 5280 section 4.2: what is critical and not understood must be refused."""
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    return authority.svid(_NAMESPACE, _ACCOUNT, extensions=((unknown, True),))


def malformed_san(authority: MemoryAuthority) -> Svid:
    """The subjectAltName is no DER."""
    san = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x7f\x86\x01a")
    return authority.svid(_NAMESPACE, _ACCOUNT, uris=(), extensions=((san, True),))


INVALID_IDS: Mapping[str, bytes] = MappingProxyType(
    {
        "https_uri": b"https://cluster.local/ns/demo/sa/rogue",
        "scheme_without_slashes": b"spiffe:/cluster.local/a",
        "scheme_in_capitals": b"SPIFFE://cluster.local/a",
        "empty_uri": b"",
        "no_trust_domain": b"spiffe://",
        "no_trust_domain_but_path": b"spiffe:///a",
        "user_info": b"spiffe://user@cluster.local/a",
        "port": b"spiffe://cluster.local:80/a",
        "empty_port": b"spiffe://cluster.local:/a",
        "host_in_capitals": b"spiffe://Cluster.Local/a",
        "host_percent_encoded": b"spiffe://cluster%2elocal/a",
        "host_in_brackets": b"spiffe://[::1]/a",
        "host_not_ascii": "spiffe://clüster.local/a".encode(),
        "host_with_high_byte": b"spiffe://cluster.local\xff/a",
        "query": b"spiffe://cluster.local/a?q",
        "empty_query": b"spiffe://cluster.local/a?",
        "fragment": b"spiffe://cluster.local/a#f",
        "empty_fragment": b"spiffe://cluster.local/a#",
        "path_percent_encoded": b"spiffe://cluster.local/a%2fb",
        "path_with_space": b"spiffe://cluster.local/a b",
        "path_with_colon": b"spiffe://cluster.local/a:b",
        "path_with_tilde": b"spiffe://cluster.local/a~b",
        "path_with_at": b"spiffe://cluster.local/a@b",
        "path_with_star": b"spiffe://cluster.local/ns/*/sa/rogue",
        "path_not_ascii": "spiffe://cluster.local/é".encode(),
        "path_with_high_byte": b"spiffe://cluster.local/a\xe9",
        "path_is_slash": b"spiffe://cluster.local/",
        "path_is_slashes": b"spiffe://cluster.local//",
        "empty_segment": b"spiffe://cluster.local/a//b",
        "trailing_slash": b"spiffe://cluster.local/a/",
        "dot_segment": b"spiffe://cluster.local/.",
        "dot_dot_segment": b"spiffe://cluster.local/a/../b",
        "trailing_newline": b"spiffe://cluster.local/ns/demo/sa/rogue\n",
        "newline_after_host": b"spiffe://cluster.local\n",
        "embedded_nul": b"spiffe://cluster.local/ns/demo/sa/orders\x00.rogue",
        "trailing_nul": b"spiffe://cluster.local/ns/demo/sa/rogue\x00",
        "leading_space": b" spiffe://cluster.local/ns/demo/sa/rogue",
        "too_long": b"spiffe://cluster.local/" + b"a" * (2049 - len(b"spiffe://cluster.local/")),
        "trust_domain_too_long": b"spiffe://" + b"a" * 256 + b"/ns/demo/sa/rogue",
    }
)
"""Texts that are no SPIFFE IDs (rules ID1 to ID11), as the bytes that stand in a URI SAN."""


def with_uri(raw: bytes) -> Callable[[MemoryAuthority], Svid]:
    """Makes a function that issues a certificate whose one URI is exactly these bytes."""

    def make(authority: MemoryAuthority) -> Svid:
        return authority.svid(_NAMESPACE, _ACCOUNT, uris=(raw,))

    return make


def _case(
    make: Callable[[MemoryAuthority], Svid], reason_word: str, description: str, alert: str = _BAD
) -> tuple[str, BrokenCase]:
    case = BrokenCase(make=make, reason_word=reason_word, alert=alert, description=description)
    return make.__name__, case


BROKEN: Mapping[str, BrokenCase] = MappingProxyType(
    dict(
        (
            _case(no_subject_alt_name, "uri_san_missing", "no subjectAltName at all"),
            _case(dns_name_with_spiffe_text, "uri_san_missing", "the SPIFFE ID stands in a DNS name"),
            _case(common_name_with_spiffe_text, "uri_san_missing", "the SPIFFE ID stands in the common name"),
            _case(two_uris_distinct, "uri_san_not_alone", "two different URIs"),
            _case(two_uris_identical, "uri_san_not_alone", "the same URI twice"),
            _case(spiffe_and_https_uri, "uri_san_not_alone", "a SPIFFE ID and a web address"),
            _case(root_path, "spiffe_id_without_path", "the ID of the trust domain itself"),
            _case(san_not_critical_with_empty_subject, "san_not_critical", "empty subject, name not critical"),
            _case(leaf_is_ca, "leaf_is_ca", "basicConstraints CA:TRUE on a leaf"),
            _case(may_sign_certificates, "leaf_may_sign_certificates", "keyCertSign on a leaf"),
            _case(may_sign_crls, "leaf_may_sign_crls", "cRLSign on a leaf"),
            _case(may_sign_certificates_and_crls, "leaf_may_sign_certificates", "keyCertSign and cRLSign on a leaf"),
            _case(no_digital_signature, "digital_signature_missing", "keyUsage keyAgreement alone", _UNSUPPORTED),
            _case(no_key_usage, "key_usage_missing", "no keyUsage", _UNSUPPORTED),
            _case(key_usage_not_critical, "key_usage_not_critical", "keyUsage not critical"),
            _case(server_auth_only, "extended_key_usage_lacking", "EKU serverAuth alone", _UNSUPPORTED),
            _case(client_auth_only, "extended_key_usage_lacking", "EKU clientAuth alone", _UNSUPPORTED),
            _case(code_signing_only, "extended_key_usage_lacking", "EKU codeSigning alone", _UNSUPPORTED),
            _case(rsa_1024, "key_too_weak", "an RSA key of 1024 bits"),
            _case(expired, "certificate_expired", "ended yesterday", "certificate_expired"),
            _case(not_yet_valid, "certificate_not_yet_valid", "begins tomorrow"),
            _case(intermediate_as_leaf, "leaf_is_ca", "the intermediate presented as the end entity"),
            _case(foreign_root, "issuer_unknown", "our trust domain, an impostor's root", _UNKNOWN_CA),
            _case(unknown_trust_domain, "trust_domain_unknown", "a trust domain without a bundle", _UNKNOWN_CA),
            _case(
                our_name_signed_by_neighbour,
                "root_of_other_trust_domain",
                "our name under the neighbour's root",
                _UNKNOWN_CA,
            ),
            _case(
                neighbours_name_signed_by_us,
                "root_of_other_trust_domain",
                "the neighbour's name under our root",
                _UNKNOWN_CA,
            ),
            _case(self_signed, "issuer_unknown", "signed by its own key", _UNKNOWN_CA),
            _case(missing_intermediate, "issuer_unknown", "the intermediate is not sent", _UNKNOWN_CA),
            _case(wrong_signature, "signature_invalid", "one bit of the signature turned"),
            _case(signed_by_a_leaf, "signing_certificate_invalid", "signed by a workload's certificate"),
            _case(signed_by_ca_without_cert_sign, "signing_certificate_invalid", "a signer without keyCertSign"),
            _case(signed_by_ca_with_path_in_its_id, "signing_certificate_invalid", "a signer that is named a workload"),
            _case(
                signed_by_ca_with_usage_not_critical,
                "signing_certificate_invalid",
                "a signer whose keyUsage is not critical",
            ),
            _case(path_length_exceeded, "chain_invalid", "a CA below pathLen 0"),
            _case(name_constraint_violated, "name_constraint_violated", "a name outside the signer's constraint"),
            _case(expired_intermediate, "certificate_expired", "the signer ended yesterday", "certificate_expired"),
            _case(unknown_critical_extension, "chain_invalid", "a critical extension that nobody knows"),
            _case(malformed_san, "certificate_malformed", "a subjectAltName that is no DER"),
            *(
                (name, _case(with_uri(raw), "spiffe_id_invalid", f"the URI {name.replace('_', ' ')}")[1])
                for name, raw in INVALID_IDS.items()
            ),
        )
    )
)
"""Every broken certificate by name."""


def _id(authority: MemoryAuthority) -> bytes:
    return f"spiffe://{authority.trust_domain}/ns/{_NAMESPACE}/sa/{_ACCOUNT}".encode("ascii")


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _with_usage(authority: MemoryAuthority, usage: x509.KeyUsage | None) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, key_usage=usage)


def _with_purposes(authority: MemoryAuthority, *purposes: ObjectIdentifier) -> Svid:
    return authority.svid(_NAMESPACE, _ACCOUNT, extended_key_usage=x509.ExtendedKeyUsage(purposes))


def _under(authority: MemoryAuthority, **overrides: object) -> Svid:
    """Issues a good leaf under a signer of the given shape, which the root has signed unless said otherwise."""
    shape: dict[str, object] = {
        "subject": _common_name("odd signer"),
        "uris": (f"spiffe://{authority.trust_domain}".encode("ascii"),),
        "extended_key_usage": None,
        "key": "odd signer",
        "issuer": authority.root,
        "issuer_key": authority.root_key,
        "chain": (),
    } | overrides
    signer = authority.shaped(Shape(**shape))  # type: ignore[arg-type]
    chain = (signer.leaf,) if shape["issuer"] is authority.root else (signer.leaf, authority.intermediate)
    return authority.svid(_NAMESPACE, _ACCOUNT, issuer=signer.leaf, issuer_key=signer.key, chain=chain)
