"""Tokens of an identity by_jwks: valid ones are accepted, and known attacks are rejected."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from chestai.clock import now
from chestai.config import load as conf
from chestai.config.schema import Jwt
from chestai.errors import UserError
from serve.auth import jwks
from serve.auth.oidc import OidcVerifier
from serve.auth.permissions import Principal
from tests.serve.support.tokens import EC, ISSUER, RSA, SECRET, claims, encode_unchecked, pem, public_jwk, sign_hs256

RITA = Principal("oidc:rita", "reviewer")


@pytest.fixture
def by_secret(tmp_path: Path) -> OidcVerifier:
    """Verifies tokens signed with a by_secret secret."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return OidcVerifier(Jwt(issuer=ISSUER, secret=str(tmp_path / "secret")))


@pytest.fixture
def by_jwks(tmp_path: Path) -> OidcVerifier:
    """Verifies tokens signed with private keys."""
    file = tmp_path / "jwks.json"
    entries = [
        public_jwk(RSA, "r"),
        public_jwk(EC, "e"),
        {"kty": "oct", "kid": "o", "k": "c2VjcmV0"},
        public_jwk(RSA, "x", use="enc"),
    ]
    file.write_text(json.dumps({"keys": entries}))
    return OidcVerifier(Jwt(issuer=ISSUER, jwks=str(file)))


def test_accepts_valid_tokens(by_secret: OidcVerifier, by_jwks: OidcVerifier) -> None:
    assert by_secret.authenticate(jwt.encode(claims(), SECRET, "HS256")) == RITA
    assert by_jwks.authenticate(jwt.encode(claims(), RSA, "RS256", headers={"kid": "r"})) == RITA
    assert by_jwks.authenticate(jwt.encode(claims(), EC, "ES256", headers={"kid": "e"})) == RITA
    assert by_jwks.authenticate(jwt.encode(claims(aud=["other", "chestai"]), EC, "ES256")) == RITA, (
        "the only key for ES256"
    )


WRONG: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example.org"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "mail"},
    "no audience": {"aud": None},
    "over": {"exp": now() - timedelta(minutes=2)},
    "without an end": {"exp": None},
    "not yet": {"nbf": now() + timedelta(days=1)},
    "of the future": {"iat": now() + timedelta(days=1)},
    "nobody's": {"sub": None},
    "without a name": {"sub": ""},
    "a name of two lines": {"sub": "rita\nadmin"},
    "a name without an end": {"sub": "r" * 500},
    "no role": {"role": None},
    "an unknown role": {"role": "root"},
    "a role of another kind": {"role": {"admin": True}},
}


@pytest.mark.parametrize("case", WRONG)
def test_rejects_wrong_claims(by_secret: OidcVerifier, case: str) -> None:
    assert by_secret.authenticate(jwt.encode(claims(), SECRET, "HS256")) == RITA
    assert by_secret.authenticate(jwt.encode(claims(**WRONG[case]), SECRET, "HS256")) is None


def test_rejects_unsigned_tokens(by_secret: OidcVerifier, by_jwks: OidcVerifier) -> None:
    good = jwt.encode(claims(), SECRET, "HS256")
    tokens = [
        encode_unchecked({"alg": name, "typ": "JWT"}, claims())
        for name in ("none", "None", "NONE", "", "HS256", "RS256")
    ]
    tokens += [good.rsplit(".", 1)[0] + ".", good.rsplit(".", 1)[0]]
    for verifier in (by_secret, by_jwks):
        assert [token for token in tokens if verifier.authenticate(token) is not None] == []


def test_rejects_tokens_signed_with_a_public_key(by_jwks: OidcVerifier, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    both = OidcVerifier(Jwt(issuer=ISSUER, secret=str(tmp_path / "secret"), jwks=str(tmp_path / "jwks.json")))
    for verifier in (by_jwks, both):
        for key_id in ("r", "e", "o", None):
            header = {"alg": "HS256", "typ": "JWT", **({} if key_id is None else {"kid": key_id})}
            for secret in (pem(RSA), pem(EC), b"secret", json.dumps(public_jwk(RSA, "r")).encode(), b""):
                assert verifier.authenticate(sign_hs256(header, secret)) is None
    assert both.authenticate(sign_hs256({"alg": "HS256", "typ": "JWT"}, SECRET.encode())) == RITA, (
        "the forging itself works"
    )


def test_rejects_algorithms_other_than_the_keys(by_jwks: OidcVerifier, by_secret: OidcVerifier) -> None:
    for algorithm, key, key_id in (("RS384", RSA, "r"), ("PS256", RSA, "r"), ("RS256", RSA, "e"), ("ES256", EC, "r")):
        assert by_jwks.authenticate(jwt.encode(claims(), key, algorithm, headers={"kid": key_id})) is None
    assert by_jwks.authenticate(jwt.encode(claims(), RSA, "RS256", headers={"kid": "x"})) is None, "for encryption"
    assert by_secret.authenticate(jwt.encode(claims(), SECRET * 2, "HS512")) is None
    assert by_secret.authenticate(jwt.encode(claims(), RSA, "RS256")) is None


def test_ignores_keys_in_the_token(by_jwks: OidcVerifier) -> None:
    mine = rsa.generate_private_key(65537, 2048)
    for extra in ({"jwk": public_jwk(mine, "r")}, {"jku": "http://127.0.0.1:1/"}, {"x5u": "file:///dev/zero"}, {}):
        for key_id in ({"kid": "r"}, {"kid": "../../dev/null"}, {}):
            assert by_jwks.authenticate(jwt.encode(claims(), mine, "RS256", headers={**extra, **key_id})) is None


def test_rejects_tokens_of_other_types(by_secret: OidcVerifier, by_jwks: OidcVerifier) -> None:
    """Such as a logout token, which an identity provider signs with the same key."""

    def accepts(kind: object) -> bool:
        headers = {"typ": kind, "kid": "r"}
        found = [
            by_secret.authenticate(sign_hs256({"alg": "HS256", "typ": kind}, SECRET.encode())),
            by_jwks.authenticate(jwt.encode(claims(), RSA, "RS256", headers=headers)),
        ]
        assert found in ([RITA, RITA], [None, None])
        return found[0] is not None

    assert all(accepts(kind) for kind in ("JWT", "jwt", "at+jwt", "AT+JWT"))
    others = ("logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", "JWE", "jwt ")
    assert [kind for kind in others if accepts(kind)] == []
    for kind in ("", 7, ["JWT"], {"a": 1}, True):
        assert by_secret.authenticate(sign_hs256({"alg": "HS256", "typ": kind}, SECRET.encode())) is None
    assert by_secret.authenticate(sign_hs256({"alg": "HS256"}, SECRET.encode())) == RITA


@pytest.mark.parametrize("bits", [1024, 2040])
def test_rejects_short_rsa_keys(tmp_path: Path, bits: int) -> None:
    short = rsa.generate_private_key(65537, bits)
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [public_jwk(short, "s")]}))
    with pytest.raises(UserError, match="no key for RS256 \\(2048 bits or more\\)"):
        OidcVerifier(Jwt(issuer=ISSUER, jwks=str(file)))
    file.write_text(json.dumps({"keys": [public_jwk(short, "s"), public_jwk(EC, "e")]}))
    verifier = OidcVerifier(Jwt(issuer=ISSUER, jwks=str(file)))
    assert verifier.authenticate(jwt.encode(claims(), short, "RS256", headers={"kid": "s"})) is None
    assert verifier.authenticate(jwt.encode(claims(), EC, "ES256", headers={"kid": "e"})) == RITA


def test_rejects_altered_tokens(by_secret: OidcVerifier) -> None:
    head, body, signature = jwt.encode(claims(), SECRET, "HS256").split(".")
    other = jwt.encode(claims(role="admin"), SECRET, "HS256").split(".")[1]
    tokens = [
        f"{head}.{other}.{signature}",
        f"{head}.{body}.{signature[::-1]}",
        f"{head}.{body}",
        "",
        ".",
        "..",
        "é.é.é",
    ]
    tokens += [
        "e30.e30.e30",
        f"{'W10' * 2000}.e30.",
        encode_unchecked({"alg": ["HS256"]}, claims()),
        encode_unchecked({}, claims()),
    ]
    tokens += [sign_hs256({"alg": "HS256", "crit": ["x"], "x": 1}, SECRET.encode())]
    assert [token for token in tokens if by_secret.authenticate(token) is not None] == []


@pytest.mark.parametrize(
    ("role_claim", "given", "role"),
    [
        ("role", {"role": ["reader", "admin", "x"]}, "admin"),
        ("realm_access.roles", {"realm_access": {"roles": ["offline", "reader"]}}, "reader"),
        ("https://x.org/roles", {"https://x.org/roles": "admin"}, "admin"),
        ("a.b", {"a": "reader"}, None),
        ("a.b", {"a": {"b": [["admin"]]}}, None),
    ],
)
def test_finds_the_highest_role_in_the_claim(
    tmp_path: Path, role_claim: str, given: dict[str, Any], role: str | None
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    verifier = OidcVerifier(Jwt(issuer=ISSUER, secret=str(tmp_path / "secret"), role_claim=role_claim))
    found = verifier.authenticate(jwt.encode(claims(**{"role": None, **given}), SECRET, "HS256"))
    assert (found.role if found else None) == role


class Provider(BaseHTTPRequestHandler):
    keys: tuple[dict[str, Any], ...] = ()
    requests = 0
    is_down = False

    def do_GET(self) -> None:
        type(self).requests += 1
        self.send_response(503 if self.is_down else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"keys": self.keys}).encode())

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def jwks_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Provider.keys, Provider.requests, Provider.is_down = (public_jwk(RSA, "r"),), 0, False
    server = HTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks"
    server.shutdown()
    thread.join()
    server.server_close()


def test_reads_keys_again_when_they_change(jwks_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(jwks.time, "monotonic", lambda: clock[0])
    verifier = OidcVerifier(Jwt(issuer=ISSUER, jwks=jwks_url))
    old = jwt.encode(claims(), RSA, "RS256", headers={"kid": "r"})
    new = jwt.encode(claims(), EC, "ES256", headers={"kid": "e"})
    Provider.keys = (public_jwk(EC, "e"),)
    assert verifier.authenticate(new) is None and verifier.authenticate(old) == RITA and Provider.requests == 1
    clock[0] += jwks.MIN_REFRESH_S + 1
    for number in range(50):
        assert verifier.authenticate(jwt.encode(claims(), EC, "ES256", headers={"kid": f"guess {number}"})) is None
    assert Provider.requests == 2, "guessing key IDs causes no traffic"
    assert verifier.authenticate(new) == RITA and verifier.authenticate(old) is None
    Provider.is_down = True
    clock[0] += jwks.MAX_AGE_S + 1
    assert verifier.authenticate(new) == RITA and Provider.requests == 3, "a provider that is down locks nobody out"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"secret": "/nowhere"}, "auth.jwt.secret=/nowhere cannot be read: No such file"),
        ({"secret": "short"}, "has 5 bytes: HS256 needs 32 or more"),
        ({"jwks": "/nowhere"}, "auth.jwt.jwks=/nowhere cannot be read"),
        ({"jwks": "http://id.example.org/jwks"}, "name a file or an https URL"),
        ({"jwks": "ftp://127.0.0.1/jwks"}, "name a file or an https URL"),
        ({"jwks": "empty"}, "it holds no key for RS256 (2048 bits or more) or ES256"),
        ({"jwks": "short"}, "cannot be read"),
    ],
)
def test_rejects_unusable_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("short")
    Path("empty").write_text('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, 7]}')
    with pytest.raises(UserError) as raised:
        OidcVerifier(Jwt(issuer=ISSUER, **settings))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_config_needs_an_issuer() -> None:
    with pytest.raises(UserError, match=r"need jwt\.issuer"):
        conf.load(["auth.jwt.secret=/s", "cluster=laptop"])
    config = conf.load(["auth.jwt.secret=/s", f"auth.jwt.issuer={ISSUER}", "cluster=laptop"])
    assert config.auth.required and config.auth.jwt.audience == "chestai"
    old = {key: value for key, value in config.plain().items() if key not in ("state", "auth")}
    assert conf.validate(old).auth.jwt.secret is None, "runs of earlier versions have no such sections"
