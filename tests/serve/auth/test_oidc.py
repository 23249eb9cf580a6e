"""Tokens of an identity provider: what is good is taken, and each known attack is not."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chestai.clock import now
from chestai.config import load as conf
from chestai.config.schema import Jwt
from chestai.errors import UserError
from serve.auth import jwks
from serve.auth.oidc import OidcVerifier
from serve.auth.permissions import Principal

SECRET = "0123456789abcdef0123456789abcdef"
ISSUER = "https://id.example.org"
RITA = Principal("oidc:rita", "reviewer")

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def claims(**more: Any) -> dict[str, Any]:
    ends = now() + timedelta(minutes=5)
    given = {"iss": ISSUER, "aud": "chestai", "sub": "rita", "exp": ends, "role": "reviewer", **more}
    return {name: value for name, value in given.items() if value is not None}


def public(key: Any, key_id: str | None, **more: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    entry = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**entry, **({} if key_id is None else {"kid": key_id}), **more}


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_hand(header: dict[str, Any], content: dict[str, Any], signature: bytes = b"") -> str:
    """A token with any header."""
    content = {**content, "exp": int(content["exp"].timestamp())}
    parts = [json.dumps(header).encode(), json.dumps(content).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def hmac_of(header: dict[str, Any], key: bytes) -> str:
    """A token of HS256 whose key may be anything: PyJWT itself refuses to sign with a public key."""
    unsigned = by_hand(header, claims()).rsplit(".", 1)[0]
    made = hmac.new(key, unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


@pytest.fixture
def shared(tmp_path: Path) -> OidcVerifier:
    """Of a provider with a secret."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return OidcVerifier(Jwt(issuer=ISSUER, secret=str(tmp_path / "secret")))


@pytest.fixture
def provider(tmp_path: Path) -> OidcVerifier:
    """Of a provider with public keys."""
    file = tmp_path / "jwks.json"
    entries = [
        public(RSA, "r"),
        public(EC, "e"),
        {"kty": "oct", "kid": "o", "k": "c2VjcmV0"},
        public(RSA, "x", use="enc"),
    ]
    file.write_text(json.dumps({"keys": entries}))
    return OidcVerifier(Jwt(issuer=ISSUER, jwks=str(file)))


def test_good_tokens(shared: OidcVerifier, provider: OidcVerifier) -> None:
    assert shared.principal(jwt.encode(claims(), SECRET, "HS256")) == RITA
    assert provider.principal(jwt.encode(claims(), RSA, "RS256", headers={"kid": "r"})) == RITA
    assert provider.principal(jwt.encode(claims(), EC, "ES256", headers={"kid": "e"})) == RITA
    assert provider.principal(jwt.encode(claims(aud=["other", "chestai"]), EC, "ES256")) == RITA, "the only one for it"


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


@pytest.mark.parametrize("what", WRONG)
def test_what_a_token_lacks(shared: OidcVerifier, what: str) -> None:
    assert shared.principal(jwt.encode(claims(), SECRET, "HS256")) == RITA
    assert shared.principal(jwt.encode(claims(**WRONG[what]), SECRET, "HS256")) is None


def test_a_token_without_a_signature(shared: OidcVerifier, provider: OidcVerifier) -> None:
    good = jwt.encode(claims(), SECRET, "HS256")
    tokens = [by_hand({"alg": name, "typ": "JWT"}, claims()) for name in ("none", "None", "NONE", "", "HS256", "RS256")]
    tokens += [good.rsplit(".", 1)[0] + ".", good.rsplit(".", 1)[0]]
    for door in (shared, provider):
        assert [token for token in tokens if door.principal(token) is not None] == []


def test_a_public_key_is_no_secret(provider: OidcVerifier, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    both = OidcVerifier(Jwt(issuer=ISSUER, secret=str(tmp_path / "secret"), jwks=str(tmp_path / "jwks.json")))
    for door in (provider, both):
        for key_id in ("r", "e", "o", None):
            header = {"alg": "HS256", "typ": "JWT", **({} if key_id is None else {"kid": key_id})}
            for secret in (pem(RSA), pem(EC), b"secret", json.dumps(public(RSA, "r")).encode(), b""):
                assert door.principal(hmac_of(header, secret)) is None
    assert both.principal(hmac_of({"alg": "HS256", "typ": "JWT"}, SECRET.encode())) == RITA, "the forge itself works"


def test_a_key_decides_the_algorithm(provider: OidcVerifier, shared: OidcVerifier) -> None:
    for algorithm, key, key_id in (("RS384", RSA, "r"), ("PS256", RSA, "r"), ("RS256", RSA, "e"), ("ES256", EC, "r")):
        assert provider.principal(jwt.encode(claims(), key, algorithm, headers={"kid": key_id})) is None
    assert provider.principal(jwt.encode(claims(), RSA, "RS256", headers={"kid": "x"})) is None, "for encryption"
    assert shared.principal(jwt.encode(claims(), SECRET * 2, "HS512")) is None
    assert shared.principal(jwt.encode(claims(), RSA, "RS256")) is None


def test_a_key_of_the_tokens_own_is_not_looked_at(provider: OidcVerifier) -> None:
    mine = rsa.generate_private_key(65537, 2048)
    for extra in ({"jwk": public(mine, "r")}, {"jku": "http://127.0.0.1:1/"}, {"x5u": "file:///dev/zero"}, {}):
        for key_id in ({"kid": "r"}, {"kid": "../../dev/null"}, {}):
            assert provider.principal(jwt.encode(claims(), mine, "RS256", headers={**extra, **key_id})) is None


def test_what_was_altered(shared: OidcVerifier) -> None:
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
    tokens += ["e30.e30.e30", f"{'W10' * 2000}.e30.", by_hand({"alg": ["HS256"]}, claims()), by_hand({}, claims())]
    tokens += [hmac_of({"alg": "HS256", "crit": ["x"], "x": 1}, SECRET.encode())]
    assert [token for token in tokens if shared.principal(token) is not None] == []


@pytest.mark.parametrize(
    ("where", "given", "role"),
    [
        ("role", {"role": ["reader", "admin", "x"]}, "admin"),
        ("realm_access.roles", {"realm_access": {"roles": ["offline", "reader"]}}, "reader"),
        ("https://x.org/roles", {"https://x.org/roles": "admin"}, "admin"),
        ("a.b", {"a": "reader"}, None),
        ("a.b", {"a": {"b": [["admin"]]}}, None),
    ],
)
def test_where_the_role_stands(tmp_path: Path, where: str, given: dict[str, Any], role: str | None) -> None:
    (tmp_path / "secret").write_text(SECRET)
    door = OidcVerifier(Jwt(issuer=ISSUER, secret=str(tmp_path / "secret"), role_claim=where))
    found = door.principal(jwt.encode(claims(**{"role": None, **given}), SECRET, "HS256"))
    assert (found.role if found else None) == role


class Provider(BaseHTTPRequestHandler):
    keys: tuple[dict[str, Any], ...] = ()
    asked = 0
    away = False

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(503 if self.away else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"keys": self.keys}).encode())

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Provider.keys, Provider.asked, Provider.away = (public(RSA, "r"),), 0, False
    server = HTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks"
    server.shutdown()
    thread.join()
    server.server_close()


def test_keys_that_change(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(jwks.time, "monotonic", lambda: clock[0])
    door = OidcVerifier(Jwt(issuer=ISSUER, jwks=place))
    old = jwt.encode(claims(), RSA, "RS256", headers={"kid": "r"})
    new = jwt.encode(claims(), EC, "ES256", headers={"kid": "e"})
    Provider.keys = (public(EC, "e"),)
    assert door.principal(new) is None and door.principal(old) == RITA and Provider.asked == 1
    clock[0] += jwks.PAUSE_S + 1
    for number in range(50):
        assert door.principal(jwt.encode(claims(), EC, "ES256", headers={"kid": f"guess {number}"})) is None
    assert Provider.asked == 2, "guessing makes no traffic"
    assert door.principal(new) == RITA and door.principal(old) is None
    Provider.away = True
    clock[0] += jwks.RENEW_S + 1
    assert door.principal(new) == RITA and Provider.asked == 3, "a provider that is away locks nobody out"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"secret": "/nowhere"}, "auth.jwt.secret=/nowhere cannot be read: No such file"),
        ({"secret": "short"}, "has 5 bytes: HS256 needs 32 or more"),
        ({"jwks": "/nowhere"}, "auth.jwt.jwks=/nowhere cannot be read"),
        ({"jwks": "http://id.example.org/jwks"}, "name a file or an https URL"),
        ({"jwks": "ftp://127.0.0.1/jwks"}, "name a file or an https URL"),
        ({"jwks": "empty"}, "it holds no key for RS256 or ES256"),
        ({"jwks": "short"}, "cannot be read"),
    ],
)
def test_settings_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("short")
    Path("empty").write_text('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, 7]}')
    with pytest.raises(UserError) as refused:
        OidcVerifier(Jwt(issuer=ISSUER, **settings))
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_the_configuration_needs_an_issuer() -> None:
    with pytest.raises(UserError, match=r"need jwt\.issuer"):
        conf.load(["auth.jwt.secret=/s", "cluster=laptop"])
    config = conf.load(["auth.jwt.secret=/s", f"auth.jwt.issuer={ISSUER}", "cluster=laptop"])
    assert config.auth.required and config.auth.jwt.audience == "chestai"
    old = {key: value for key, value in config.plain().items() if key not in ("state", "auth")}
    assert conf.validate(old).auth.jwt.secret is None, "a run of a former version has no such sections"
