"""What our sides of TLS connections are given: PEM files in, contexts out."""

import ssl
from pathlib import Path

from commserver.errors import ConfigError


def client_context(
    ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return what to dial with: the peer must show a certificate for the name that we dialled.

    ca: whom to trust, instead of those whom this machine trusts. cert, key: ours, for a peer that
    asks; a `cert` without `key` holds both.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    if ca is not None:
        _readable(ca)
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{ca}: no certificates to trust: {_said(error)}"]) from error
    if cert is not None:
        _load(context, cert, key)
    return context


def server_context(cert: Path, key: Path | None = None) -> ssl.SSLContext:
    """Return what to listen with. `cert` has its chain, and the key too where there is no `key`.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, cert, key)
    return context


def problem(error: ssl.SSLError) -> str:
    """Return in one line why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is not good: {error.verify_message}"
    return f"no TLS with the peer: {_said(error)}"


def _load(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    for file in (cert, key):
        if file is not None:
            _readable(file)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        files = f"{cert} and {key}" if key else str(cert)
        raise ConfigError([f"{files}: no certificate with its key: {_said(error)}"]) from error


def _readable(file: Path) -> None:
    """Refuse in words that name the file, which OpenSSL does not."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}"]) from error


def _no_password() -> str:
    """Refuse a key with a password: OpenSSL would ask for it on the terminal."""
    raise ValueError("the key has a password")


def _said(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error) or type(error).__name__
