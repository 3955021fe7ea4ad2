"""Certificates for servers of the tests, and the authority that signs them."""

from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAMED = "verger.test"
"""A name for this machine that is in its certificate, and that no resolver knows."""


def make_certificates(folder: Path) -> tuple[str | Path, ...]:
    """A server's options for a certificate by the authority in `ca.pem`; another is `other.pem`."""
    authority, stranger = certify("An authority", None), certify("Another authority", None)
    certificate, key = certify("verger", authority)
    pem = serialization.Encoding.PEM
    for name, made in (("cert", certificate), ("ca", authority[0]), ("other", stranger[0])):
        (folder / f"{name}.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return "--certificate", folder / "cert.pem", "--key", folder / "key.pem"


def certify(name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None) -> tuple:
    """A certificate for this machine by an authority, or that of an authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    authority, signing_key = issuer or (None, key)
    signed_by = signing_key.public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=issuer is None,
                crl_sign=issuer is None, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName(NAMED)]
            ),
            critical=False,
        )
    )  # fmt: skip
    return made.sign(signing_key, hashes.SHA256()), key
