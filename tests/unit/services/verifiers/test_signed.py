"""Signed tokens: what is taken, and everything that is not."""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr

from commserver.config import Jwt
from commserver.errors import ConfigError, NotAuthenticated
from commserver.services.auth_service import AuthService, Identity
from commserver.services.verifiers.signed import SignedVerifier
from tests.fakes import FakeClock

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

ED, OTHER_ED = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
EC = ec.generate_private_key(ec.SECP256R1())
EC_384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
SECRET = "0123456789abcdef0123456789abcdef"  # 32 bytes, of these tests
ALL: dict[str, PrivateKey] = {"EdDSA": ED, "ES256": EC, "RS256": RSA}


def pem(*keys: PrivateKey) -> str:
    """Return the public keys, as a file has them."""
    return "".join(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        for key in keys
    )


def private_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def jwk(key: PrivateKey, **more: str) -> dict[str, Any]:
    algorithms = jwt.algorithms.get_default_algorithms()
    name = next(name for name, one in ALL.items() if type(one) is type(key))
    told: dict[str, Any] = algorithms[name].to_jwk(key.public_key(), as_dict=True)
    return told | more


def key_set(*keys: Mapping[str, Any]) -> str:
    return json.dumps({"keys": keys})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The file with a key of each kind."""
    file = tmp_path / "keys.pem"
    file.write_text(pem(ED, EC, RSA))
    return file


@pytest.fixture
def verifier(keys: Path, clock: FakeClock) -> SignedVerifier:
    return SignedVerifier(Jwt(keys=keys), clock)


class Signer:
    """Makes tokens that are valid at the clock's moment unless they are told otherwise."""

    def __init__(self, clock: FakeClock) -> None:
        self.now = int(clock.utc().timestamp())

    def __call__(
        self,
        key: PrivateKey | str = ED,
        algorithm: str = "EdDSA",
        *,
        header: dict[str, Any] | None = None,
        without: str = "",
        **claims: object,
    ) -> str:
        told = {"sub": "12", "exp": self.now + 60} | claims
        told.pop(without, None)
        return jwt.encode(told, key, algorithm, headers=header)

    def raw(self, payload: str, header: str = '{"alg":"EdDSA"}') -> str:
        """Return a token whose signature is right, whatever it says."""
        signed = f"{encoded(header)}.{encoded(payload)}"
        return f"{signed}.{encoded(ED.sign(signed.encode()))}"


def encoded(part: str | bytes) -> str:
    plain = part.encode() if isinstance(part, str) else part
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


def unsigned(header: str | bytes) -> str:
    """Return a token with this header and no signature."""
    return f"{encoded(header)}.{encoded('{}')}."


@pytest.fixture
def signed(clock: FakeClock) -> Signer:
    return Signer(clock)


async def refused(verifier: SignedVerifier, token: str) -> bool:
    """Return whether a token is refused, as any bad token is: without a word about why."""
    with pytest.raises(NotAuthenticated) as caught:
        await AuthService(verifier).identify(token)
    return str(caught.value) == "this token is not valid"


# -- what is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALL)
async def test_the_default_algorithms_are_eddsa_es256_and_rs256(
    verifier: SignedVerifier, signed: Signer, algorithm: str
) -> None:
    token = signed(ALL[algorithm], algorithm)

    assert await verifier.identify(token) == Identity(12)


async def test_hs256_is_taken_with_a_secret_of_32_bytes(clock: FakeClock, signed: Signer) -> None:
    verifier = SignedVerifier(Jwt(algorithms=("HS256",), secret=SecretStr(SECRET)), clock)

    assert await verifier.identify(signed(SECRET, "HS256")) == Identity(12)
    assert await refused(verifier, signed(SECRET.upper(), "HS256"))


async def test_the_secret_may_be_in_a_file(
    tmp_path: Path, clock: FakeClock, signed: Signer
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    verifier = SignedVerifier(Jwt(algorithms=("HS256",), secret_file=file), clock)

    assert await verifier.identify(signed(SECRET, "HS256")) == Identity(12)


@pytest.mark.parametrize("account", [0, 1, 2**63 - 1])
async def test_sub_is_the_account(verifier: SignedVerifier, signed: Signer, account: int) -> None:
    assert await verifier.identify(signed(sub=str(account))) == Identity(account)


async def test_issuer_and_audience_are_as_configured(
    keys: Path, clock: FakeClock, signed: Signer
) -> None:
    verifier = SignedVerifier(Jwt(keys=keys, issuer="school", audience="judge"), clock)

    assert await verifier.identify(signed(iss="school", aud="judge")) == Identity(12)
    assert await verifier.identify(signed(iss="school", aud=["wiki", "judge"])) == Identity(12)


async def test_without_a_configured_issuer_any_may_have_issued_it(
    verifier: SignedVerifier, signed: Signer
) -> None:
    assert await verifier.identify(signed(iss="somebody")) == Identity(12)


# -- what is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "..",
        "a.b.c",
        "a.b.c.d",
        "\0",
        "\ud800",
        "é.é.é",
        unsigned("{}"),
        unsigned("[]"),
        unsigned("1"),
        unsigned('{"alg":1}'),
        unsigned('{"alg":["EdDSA"]}'),
        unsigned("[" * 5000),
        unsigned(b"\xff\xfe"),
    ],
)
async def test_what_is_no_signed_token_is_refused(verifier: SignedVerifier, token: str) -> None:
    assert await refused(verifier, token)


async def test_none_is_never_an_algorithm(verifier: SignedVerifier, signed: Signer) -> None:
    _, payload, _ = signed().split(".")
    for name in ("none", "None", "NONE", ""):
        header = encoded(json.dumps({"alg": name}))
        assert await refused(verifier, f"{header}.{payload}.")


async def test_an_algorithm_that_is_not_listed_is_refused(
    keys: Path, clock: FakeClock, signed: Signer
) -> None:
    verifier = SignedVerifier(Jwt(keys=keys, algorithms=("ES256",)), clock)

    assert await refused(verifier, signed())
    assert await verifier.identify(signed(EC, "ES256"))


async def test_a_public_key_is_never_taken_for_a_shared_secret(
    keys: Path, clock: FakeClock, signed: Signer
) -> None:
    """Whoever has the public key could else sign with it, and name HS256."""
    header = encoded(json.dumps({"alg": "HS256"}))
    payload = signed().split(".")[1]
    for secret in (pem(RSA), pem(ED, EC, RSA)):
        key = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        signature = encoded(key.sign(f"{header}.{payload}".encode(), secret.encode()))
        for config in (
            Jwt(keys=keys),
            Jwt(keys=keys, algorithms=("RS256", "HS256"), secret=SecretStr(SECRET)),
        ):
            verifier = SignedVerifier(config, clock)
            assert await refused(verifier, f"{header}.{payload}.{signature}")


async def test_another_algorithm_of_the_same_kind_of_key_is_refused(
    verifier: SignedVerifier, signed: Signer
) -> None:
    assert await refused(verifier, signed(RSA, "PS256"))
    assert await refused(verifier, signed(EC_384, "ES384"))


async def test_a_wrong_key_is_refused(verifier: SignedVerifier, signed: Signer) -> None:
    assert await refused(verifier, signed(OTHER_ED))


async def test_a_changed_payload_is_refused(verifier: SignedVerifier, signed: Signer) -> None:
    header, _, signature = signed().split(".")
    _, payload, _ = signed(sub="13").split(".")

    assert await refused(verifier, f"{header}.{payload}.{signature}")


async def test_an_expired_token_is_refused(
    verifier: SignedVerifier, signed: Signer, clock: FakeClock
) -> None:
    token = signed()

    clock.advance(69.0)  # 10 s by which clocks may differ
    assert await verifier.identify(token)
    clock.advance(1.0)

    assert await refused(verifier, token)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_a_token_that_is_not_valid_yet_is_refused(
    verifier: SignedVerifier, signed: Signer, clock: FakeClock, claim: str
) -> None:
    claims = {"sub": "12", claim: signed.now + 20, "exp": signed.now + 60}
    token = signed.raw(json.dumps(claims))

    assert await refused(verifier, token)
    clock.advance(10.0)

    assert await verifier.identify(token)


@pytest.mark.parametrize("claim", ["exp", "sub"])
async def test_exp_and_sub_are_required(
    verifier: SignedVerifier, signed: Signer, claim: str
) -> None:
    assert await refused(verifier, signed(without=claim))


@pytest.mark.parametrize(
    "sub",
    ["12", '""', '"-1"', '" 12"', '"1_2"', '"١٢"', '"ada"', f'"{2**63}"', "[]", "null"],
)
async def test_a_sub_that_is_no_account_in_digits_is_refused(
    verifier: SignedVerifier, signed: Signer, sub: str
) -> None:
    assert await refused(verifier, signed.raw(f'{{"sub":{sub},"exp":{signed.now + 60}}}'))


@pytest.mark.parametrize(
    "exp",
    ["true", '"99999999999"', "null", "NaN", "Infinity", "1e999", "1" * 400, "1" * 5000],
)
async def test_an_exp_that_is_no_moment_is_refused(
    verifier: SignedVerifier, signed: Signer, exp: str
) -> None:
    assert await refused(verifier, signed.raw(f'{{"sub":"12","exp":{exp}}}'))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize("value", [True, "1", None, [1]])
async def test_an_nbf_or_iat_that_is_no_moment_is_refused(
    verifier: SignedVerifier, signed: Signer, claim: str, value: object
) -> None:
    claims = json.dumps({"sub": "12", "exp": signed.now + 60, claim: value})

    assert await refused(verifier, signed.raw(claims))


@pytest.mark.parametrize("issuer", [{}, {"iss": "other"}, {"iss": ["school"]}, {"iss": None}])
async def test_a_wrong_issuer_is_refused(
    keys: Path, clock: FakeClock, signed: Signer, issuer: dict[str, object]
) -> None:
    verifier = SignedVerifier(Jwt(keys=keys, issuer="school"), clock)
    claims = json.dumps({"sub": "12", "exp": signed.now + 60} | issuer)

    assert await refused(verifier, signed.raw(claims))


@pytest.mark.parametrize(
    "audience", [{}, {"aud": "other"}, {"aud": []}, {"aud": [["judge"]]}, {"aud": {"judge": 1}}]
)
async def test_a_missing_or_wrong_audience_is_refused(
    keys: Path, clock: FakeClock, signed: Signer, audience: dict[str, object]
) -> None:
    verifier = SignedVerifier(Jwt(keys=keys, audience="judge"), clock)
    claims = json.dumps({"sub": "12", "exp": signed.now + 60} | audience)

    assert await refused(verifier, signed.raw(claims))


@pytest.mark.parametrize("audience", ["judge", ["judge"], [], "", None])
async def test_a_token_for_somebody_else_is_refused_where_no_audience_is_configured(
    verifier: SignedVerifier, signed: Signer, audience: object
) -> None:
    claims = json.dumps({"sub": "12", "exp": signed.now + 60, "aud": audience})

    assert await refused(verifier, signed.raw(claims))


async def test_claims_that_are_said_twice_are_refused(
    verifier: SignedVerifier, signed: Signer
) -> None:
    exp = f'"exp":{signed.now + 60}'
    assert await refused(verifier, signed.raw(f'{{"sub":"12","sub":"13",{exp}}}'))
    assert await refused(
        verifier, signed.raw(f'{{"sub":"12",{exp}}}', '{"alg":"none","alg":"EdDSA"}')
    )


@pytest.mark.parametrize(
    "payload", ["", "[]", '"x"', "1", "{", "[" * 5000, '{"x":' * 900 + "1" + "}" * 900]
)
async def test_claims_that_are_no_flat_object_are_refused(
    verifier: SignedVerifier, signed: Signer, payload: str
) -> None:
    assert await refused(verifier, signed.raw(payload))


@pytest.mark.parametrize(
    "header",
    [
        {"cty": "JWT"},
        {"crit": ["b64"], "b64": False},
        {"crit": ["exp"]},
        {"crit": []},
        {"kid": 7},
    ],
)
async def test_a_header_that_asks_for_more_than_a_signature_is_refused(
    verifier: SignedVerifier, signed: Signer, header: dict[str, object]
) -> None:
    claims = json.dumps({"sub": "12", "exp": signed.now + 60})

    assert await refused(verifier, signed.raw(claims, json.dumps({"alg": "EdDSA"} | header)))


async def test_a_key_that_the_token_brings_itself_is_not_looked_at(
    verifier: SignedVerifier, signed: Signer
) -> None:
    header = {"jwk": jwk(OTHER_ED), "jku": "http://localhost/keys", "x5c": ["AAAA"]}

    assert await refused(verifier, signed(OTHER_ED, header=header))
    assert await verifier.identify(signed(ED, header=header))


async def test_a_huge_token_is_refused_without_a_look(
    verifier: SignedVerifier, signed: Signer
) -> None:
    assert len(signed(note="x" * 5900)) < 8192

    assert await verifier.identify(signed(note="x" * 5900))
    assert await refused(verifier, signed(note="x" * 6500))


async def test_nothing_of_a_token_is_in_what_is_raised(
    verifier: SignedVerifier, signed: Signer
) -> None:
    token = signed(OTHER_ED)

    with pytest.raises(NotAuthenticated) as caught:
        await verifier.identify(token)

    said = f"{caught.value!r} {caught.value.__cause__!r} {vars(verifier)!r}"
    assert not any(part in said for part in token.split("."))


def put(file: Path, text: str | None) -> None:
    """Write into a file, or remove it."""
    if text is None:
        file.unlink()
    else:
        file.write_text(text)


def replace(file: Path, text: str) -> None:
    """Put another file of the same time in its place."""
    before = file.stat()
    new = file.with_name("new")
    new.write_text(text)
    assert new.stat().st_size == before.st_size
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(file)


# -- keys -----------------------------------------------------------------------------------------


async def test_a_key_set_is_read_too(tmp_path: Path, clock: FakeClock, signed: Signer) -> None:
    file = tmp_path / "keys.json"
    file.write_text(key_set(jwk(ED), jwk(EC), jwk(RSA)))
    verifier = SignedVerifier(Jwt(keys=file), clock)

    for algorithm, key in ALL.items():
        assert await verifier.identify(signed(key, algorithm)) == Identity(12)


async def test_a_token_that_names_its_key_is_checked_by_no_other(
    tmp_path: Path, clock: FakeClock, signed: Signer
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(key_set(jwk(ED, kid="old"), jwk(OTHER_ED, kid="new")))
    verifier = SignedVerifier(Jwt(keys=file), clock)

    assert await verifier.identify(signed(ED, header={"kid": "old"}))
    assert await verifier.identify(signed(OTHER_ED, header={"kid": "new"}))
    assert await verifier.identify(signed(OTHER_ED))
    assert await refused(verifier, signed(OTHER_ED, header={"kid": "old"}))
    assert await refused(verifier, signed(ED, header={"kid": "unknown"}))


async def test_keys_of_a_set_that_are_for_something_else_are_left_alone(
    tmp_path: Path, clock: FakeClock, signed: Signer
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(
        key_set(
            jwk(OTHER_ED, use="enc"),
            {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
            {"kty": "new"},
            jwk(RSA, alg="RS512"),
            jwk(ED),
        )
    )
    verifier = SignedVerifier(Jwt(keys=file), clock)

    assert await verifier.identify(signed())
    assert await refused(verifier, signed(OTHER_ED))
    assert await refused(verifier, signed(RSA, "RS256"))


async def test_the_file_is_read_again_when_it_has_changed(
    keys: Path, verifier: SignedVerifier, signed: Signer, clock: FakeClock
) -> None:
    put(keys, pem(OTHER_ED))

    clock.advance(9.9)
    assert await verifier.identify(signed())  # looked at every ten seconds at most
    clock.advance(0.1)

    assert await verifier.identify(signed(OTHER_ED))
    assert await refused(verifier, signed())


@pytest.mark.parametrize("broken", ["", "nonsense", "{", "{}", private_pem(OTHER_ED)])
async def test_while_the_file_cannot_be_used_the_former_keys_count(
    keys: Path, verifier: SignedVerifier, signed: Signer, clock: FakeClock, broken: str
) -> None:
    put(keys, broken)
    clock.advance(10.0)
    assert await verifier.identify(signed())
    put(keys, None)
    clock.advance(10.0)
    assert await verifier.identify(signed())

    put(keys, pem(OTHER_ED))
    clock.advance(10.0)

    assert await verifier.identify(signed(OTHER_ED))


async def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_is_read(
    keys: Path, verifier: SignedVerifier, signed: Signer, clock: FakeClock
) -> None:
    replace(keys, pem(OTHER_ED, EC, RSA))
    clock.advance(10.0)

    assert await verifier.identify(signed(OTHER_ED))


# -- configuration --------------------------------------------------------------------------------


def problems(config: Jwt) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        SignedVerifier(config, FakeClock())
    return list(caught.value.problems)


@pytest.mark.parametrize("name", ["none", "None", "NONE"])
def test_none_cannot_be_configured(keys: Path, name: str) -> None:
    [problem] = problems(Jwt(keys=keys, algorithms=("EdDSA", name)))

    assert problem == "browser.jwt.algorithms: none is no signature"


@pytest.mark.parametrize("name", ["HS512", "ES256K", "rs256", ""])
def test_an_unknown_algorithm_cannot_be_configured(keys: Path, name: str) -> None:
    [problem] = problems(Jwt(keys=keys, algorithms=("EdDSA", name)))

    assert "none of EdDSA, ES256" in problem


@pytest.mark.parametrize("secret", ["", "x" * 31, "é" * 15])
def test_hs256_needs_a_secret_of_32_bytes(secret: str) -> None:
    [problem] = problems(Jwt(algorithms=("HS256",), secret=SecretStr(secret)))

    assert "32 bytes or more" in problem
    assert not secret or secret not in problem


def test_a_key_is_no_secret(keys: Path) -> None:
    [problem] = problems(Jwt(algorithms=("HS256",), secret=SecretStr(pem(RSA))))

    assert "no secret" in problem


def test_keys_are_needed_unless_there_is_a_secret_only() -> None:
    [problem] = problems(Jwt())

    assert problem.startswith("browser.jwt.keys: which file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no public key in it"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", ""),
        (private_pem(ED), "there is a private key in it"),
        ("{", ""),
        ('{"keys":{}}', "has a list of keys"),
        ('{"keys":[1]}', "has a list of keys"),
        (key_set(), "there is no public key in it"),
        (key_set({"kty": "oct", "k": "c2VjcmV0"}), "there is a private key in it"),
        (key_set(jwk(ED) | {"d": "c2VjcmV0"}), "there is a private key in it"),
        (pem(EC_384), "no key is for EdDSA, ES256, RS256"),
    ],
)
def test_a_file_that_is_of_no_use_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)

    [problem] = problems(Jwt(keys=file))

    assert problem.startswith(f"browser.jwt.keys: {file}: ")
    assert said in problem
    assert "c2VjcmV0" not in problem


def test_a_short_rsa_key_is_told(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(pem(rsa.generate_private_key(65537, 1024)))  # noqa: S505  # that is the point

    [problem] = problems(Jwt(keys=file))

    assert "an RSA key of 1024 bits is too short" in problem


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    [problem] = problems(Jwt(keys=tmp_path / "missing"))

    assert "No such file" in problem


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    config = Jwt(
        algorithms=("none", "HS256", "RS256"),
        keys=tmp_path / "missing",
        secret=SecretStr("short"),
        secret_file=tmp_path / "secret",
    )

    found = problems(config)

    assert len(found) == 4
    assert not any("short" in problem for problem in found)
