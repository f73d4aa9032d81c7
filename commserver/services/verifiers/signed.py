"""Signed tokens (JSON Web Tokens): whose they are stands in them, and nobody has to be asked."""

import asyncio
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from commserver.config import Jwt
from commserver.core.clock import Clock
from commserver.dao.column_types import is_id
from commserver.errors import ConfigError, NotAuthenticated
from commserver.services.auth_service import Identity

log = structlog.get_logger(__name__)

LOOK_PERIOD = 10.0  # seconds between two looks whether the file of keys has changed
SECRET_LENGTH = 32  # bytes that a shared secret has at least
RSA_BITS = 2048  # that an RSA key has at least

SHARED = "HS256"
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS = ("EdDSA", *CURVES, *RSA, SHARED)

PublicKey = Ed25519PublicKey | Ed448PublicKey | EllipticCurvePublicKey | RSAPublicKey
PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key; `id` and `algorithm` as its set names them, "" where it does not."""

    public: PublicKey
    id: str = ""
    algorithm: str = ""

    def fits(self, algorithm: str, id: str | None) -> bool:
        """Return whether a token of this algorithm, which may name its key, is checked by it."""
        if self.algorithm not in ("", algorithm) or (self.id and id not in (None, self.id)):
            return False
        match self.public:
            case RSAPublicKey():
                return algorithm in RSA
            case EllipticCurvePublicKey(curve=curve):
                return CURVES.get(algorithm) == curve.name
            case _:
                return algorithm == "EdDSA"


class _Stamp(NamedTuple):
    """What is another after a file was written or replaced."""

    written: int
    size: int
    inode: int


class SignedVerifier:
    """Takes tokens that somebody signed whose public key, or whose secret, we have.

    The file of keys is read again when it has changed; while what is in it cannot be used, the
    keys that were read last count.
    """

    def __init__(self, config: Jwt, clock: Clock) -> None:
        """Reads the keys.

        Raises:
            ConfigError: with everything that is wrong.
        """
        self._config = config
        self._clock = clock
        self._problems = list(_listed(config.algorithms))
        self._secret = self._shared_secret()
        self._keys: Sequence[Key] = ()
        self._stamp: _Stamp | None = None
        if {*config.algorithms} - {SHARED}:
            self._first_keys()
        if self._problems:
            raise ConfigError(self._problems)
        self._look_at = clock.now() + LOOK_PERIOD
        self._jws = jwt.PyJWS(algorithms=list(config.algorithms))

    async def identify(self, token: str) -> Identity:
        """Return whose token this is.

        Raises:
            NotAuthenticated: it is not signed as it must be, not valid now, or not for us.
        """
        if self._stamp and self._clock.now() >= self._look_at:
            self._look_at = self._clock.now() + LOOK_PERIOD
            await asyncio.to_thread(self._look)
        try:
            return Identity(self._account(self._claims(token)))
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            log.debug("token_refused", reason=type(error).__name__, why=str(error)[:200])
            raise NotAuthenticated("this token is not valid") from None

    # -- a token ----------------------------------------------------------------------------------

    def _claims(self, token: str) -> Mapping[str, Any]:
        """Return what a token says whose signature is right.

        Raises:
            PyJWTError, ValueError, RecursionError: there is no such token.
        """
        head, _, _ = token.partition(".")
        header = _object(jwt.utils.base64url_decode(head))
        algorithm, id = header.get("alg"), header.get("kid")
        if algorithm not in self._config.algorithms:
            raise ValueError("its algorithm is not one of browser.jwt.algorithms")
        if "crit" in header or "b64" in header or str(header.get("cty", "")).upper() == "JWT":
            raise ValueError("its header asks for what we do not do")
        if id is not None and not isinstance(id, str):
            raise ValueError("its kid is no text")
        for key in self._candidates(algorithm, id):
            try:
                return _object(self._jws.decode(token, key, algorithms=[algorithm]))
            except jwt.InvalidSignatureError:
                continue
        raise ValueError("none of our keys has signed it")

    def _candidates(self, algorithm: str, id: str | None) -> Iterator[PublicKey | bytes]:
        if algorithm == SHARED:
            yield self._secret
        else:
            yield from (key.public for key in self._keys if key.fits(algorithm, id))

    def _account(self, claims: Mapping[str, Any]) -> int:
        """Return the account that a token with these claims is of.

        Raises:
            ValueError, OverflowError: none, or not now, or not for us.
        """
        now, leeway = self._clock.utc().timestamp(), self._config.leeway
        if now >= _moment(claims, "exp") + leeway:
            raise ValueError("it has expired")
        if any(now < _moment(claims, name) - leeway for name in ("nbf", "iat") if name in claims):
            raise ValueError("it is not valid yet")
        if self._config.issuer and claims.get("iss") != self._config.issuer:
            raise ValueError("its iss is not browser.jwt.issuer")
        ours = self._config.audience
        if "aud" in claims if not ours else ours not in _texts(claims.get("aud")):
            raise ValueError("its aud is not browser.jwt.audience")
        sub = claims.get("sub")
        if not isinstance(sub, str) or not DIGITS.fullmatch(sub) or not is_id(int(sub)):
            raise ValueError("its sub is no accounts.id, written as a text")
        return int(sub)

    # -- keys -------------------------------------------------------------------------------------

    def _shared_secret(self) -> bytes:
        """Return the shared secret, b"" where none is used."""
        secret = self._config.secret.get_secret_value()
        if (file := self._config.secret_file) is not None:
            if secret:
                self._problems.append("browser.jwt: secret and secret_file are both given")
            try:
                secret = file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                self._problems.append(f"browser.jwt.secret_file: {error}")
                return b""
        if SHARED not in self._config.algorithms:
            return b""
        encoded = secret.encode()
        if len(encoded) < SECRET_LENGTH:
            self._problems.append(
                f"browser.jwt.secret: {SHARED} needs one of {SECRET_LENGTH} bytes or more"
            )
        elif "-----BEGIN" in secret:
            self._problems.append("browser.jwt.secret: it is a key in PEM, which is no secret")
        return encoded

    def _first_keys(self) -> None:
        file = self._config.keys
        if file is None:
            self._problems.append("browser.jwt.keys: which file has the public keys?")
            return
        try:
            self._stamp, self._keys = _read(file)
        except ConfigError as error:
            self._problems += error.problems
        else:
            listed = [name for name in self._config.algorithms if name != SHARED]
            if not any(key.fits(name, None) for key in self._keys for name in listed):
                self._problems.append(
                    f"browser.jwt.keys: {file}: no key is for {', '.join(listed)}"
                )

    def _look(self) -> None:
        """Read the keys again if their file has changed."""
        file = self._config.keys
        assert file is not None
        try:
            stamp = _stamp(file)
            if stamp == self._stamp:
                return
            self._stamp = stamp  # also of what cannot be read: that is said once
            self._stamp, self._keys = _read(file)
        except (ConfigError, OSError) as error:
            log.warning("keys_not_read", reason=str(error))
        else:
            log.info("keys_read", keys=len(self._keys))


def _listed(algorithms: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the list of algorithms."""
    if not algorithms:
        yield "browser.jwt.algorithms: name at least one"
    for name in algorithms:
        if name.casefold() == "none":
            yield "browser.jwt.algorithms: none is no signature"
        elif name not in ALGORITHMS:
            yield f"browser.jwt.algorithms: {name} is none of {', '.join(ALGORITHMS)}"


def _object(text: bytes) -> dict[str, Any]:
    """Return the JSON object in a part of a token.

    Raises:
        ValueError, RecursionError: it is none, or says something twice.
    """
    found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")  # noqa: TRY004  # it is data, not an argument
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it says something twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _moment(claims: Mapping[str, Any], name: str) -> float:
    """Return a claim in seconds since 1970."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"its {name} is no moment")
    return value


def _texts(value: object) -> set[str]:
    """Return the texts that a claim is, or has in a list."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise ValueError("its aud is no text, nor a list of them")
    return set(values)


# -- the file of keys -----------------------------------------------------------------------------


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return _Stamp(found.st_mtime_ns, found.st_size, found.st_ino)


def _read(file: Path) -> tuple[_Stamp, Sequence[Key]]:
    """Return the keys in a file, which has changed again if its stamp is another.

    Raises:
        ConfigError: with everything that is wrong.
    """
    try:
        stamp = _stamp(file)
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"browser.jwt.keys: {error}"]) from error
    try:
        keys = list(_set(text) if text.lstrip().startswith("{") else _pem(text))
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"browser.jwt.keys: {file}: {error}"]) from error
    problems = [
        f"browser.jwt.keys: {file}: an RSA key of {key.public.key_size} bits is too short"
        for key in keys
        if isinstance(key.public, RSAPublicKey) and key.public.key_size < RSA_BITS
    ]
    if not keys:
        problems.append(f"browser.jwt.keys: {file}: there is no public key in it")
    if problems:
        raise ConfigError(problems)
    return stamp, keys


def _pem(text: str) -> Iterator[Key]:
    for block in PEM.finditer(text):
        kind, pem = block[1], block[0].encode()
        if "PRIVATE" in kind:
            raise ValueError("there is a private key in it; only public ones belong here")
        if kind == "CERTIFICATE":
            public: object = x509.load_pem_x509_certificate(pem).public_key()
        else:
            public = load_pem_public_key(pem)
        if isinstance(public, PublicKey):
            yield Key(public)


def _set(text: str) -> Iterator[Key]:
    """Yield the keys of a JSON Web Key Set that can check a signature; others are for others.

    An error never shows a key: it may be a secret one.
    """
    keys = _object(text.encode()).get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError("a JSON Web Key Set has a list of keys")
    for key in keys:
        if "d" in key or key.get("kty") == "oct":
            raise ValueError("there is a private key in it; only public ones belong here")
        if key.get("use", "sig") != "sig":
            continue
        try:
            public = jwt.PyJWK(key).key
        except jwt.PyJWTError:
            continue
        if isinstance(public, PublicKey):
            yield Key(public, str(key.get("kid", "")), str(key.get("alg", "")))
