"""Broken requests: each gets a documented response, and nothing that is not allowed is ever done."""

import base64
import json
import os
from pathlib import Path
from random import Random
from typing import Any

import jwt
import numpy as np

from chestai.clock import now
from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from serve.db.worklist.page import WorklistFilter, load_page
from tests.fuzz.images import change_bytes
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.local import Reply, encode_form, local_app, send_request
from tests.serve.support.tokens import ISSUER, SECRET, claims

LONE_SURROGATE = "\ud800"
ODD_TEXTS = (
    *("", "\0", "%00", "..", "/", "\\", "‮", "'; DROP TABLE images; --", LONE_SURROGATE, "a" * 5000, "é", "null", "[]"),
    *("9" * 400, "-1", "1e999", "true", "Effusion", "{{7*7}}", "=1+1", "\r\nX-Evil: 1"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**63, 2**64, 10**400, 1.5, float("1e300"), [], {}, [[]] * 50, {"a": {"a": {}}}),
    *ODD_TEXTS,
)
BODIES: dict[str, dict[str, Any]] = {
    "/reviews": {"image_id": "a" * 64, "verdicts": {"Mass": "TP"}, "model_version": 1, "notes": "text"},
    "/keys": {"owner": "somebody", "role": "reader", "scopes": ["read"], "days": 3},
    "/batch_infer": {"prefix": "lake", "model": 1, "match": "*", "split": "test", "heatmaps": True},
    "/infer": {"uri": "/data/a.png"},
}


class RequestTargets:
    """An application with keys, tokens and one allowed folder, beside which lies a secret."""

    def __init__(self, folder: Path) -> None:
        (folder / "token-secret").write_text(SECRET)
        self.allowed, self.secret = folder / "allowed", folder / "secret.png"
        (self.allowed / "sub").mkdir(parents=True)
        self.film = encode_image(make_films()[0])
        (self.allowed / "film.png").write_bytes(self.film)
        (self.allowed / "sub" / "film.png").write_bytes(self.film)
        self.secret.write_bytes(encode_image(np.asarray(make_films()[1])))
        os.symlink(self.secret, self.allowed / "link.png")
        os.symlink(folder, self.allowed / "up")
        settings = (f"auth.jwt.issuer={ISSUER}", f"auth.jwt.secret={folder / 'token-secret'}")
        self.app = local_app(folder, False, "auth.required=true", f"serve.prefixes=[{self.allowed}]", *settings)
        services: Services = self.app.state.services
        self.store = services.state.store
        self.key = add_first_admin(self.store.database) or ""
        self.headers = {"x-api-key": self.key}
        self.documented = self._read_statuses()
        assert self.send("/infer", self.film, {"content-type": "image/png"}).status == 200

    def fuzz_upload(self, random: Random) -> None:
        name = random.choice(("film.png", *(text for text in ODD_TEXTS if text != LONE_SURROGATE)))
        body, headers = encode_form(("file", name, "image/png", self.film))
        if random.random() < 0.7:
            body = change_bytes(random, body)
        if random.random() < 0.3:
            headers = {
                "content-type": random.choice(("image/png", "multipart/form-data", "application/json", "a/b; =;"))
            }
        self.send(random.choice(("/infer", "/predict", "/batch_predict")), body, headers)

    def fuzz_uri(self, random: Random) -> None:
        """A URI that is scored is a file of the allowed folder, and the secret beside it is never read."""
        parts = ["sub", "film.png", "link.png", "up", "..", ".", "", "secret.png", "%2e%2e", "allowed", "\0", "é"]
        start = random.choice((str(self.allowed), f"{self.allowed}/sub", f"file://{self.allowed}", "s3://bucket", ""))
        uri = start + "".join("/" + random.choice(parts) for _ in range(random.randrange(5)))
        reply = self.send("/infer", json.dumps({"uri": uri}).encode(), {"content-type": "application/json"})
        if reply.status == 200:
            assert os.path.realpath(uri).startswith(f"{os.path.realpath(self.allowed)}/"), uri

    def fuzz_cursor(self, random: Random) -> None:
        with self.store.database.read_session() as session:
            first = load_page(session, WorklistFilter(), 60, limit=1)
        text = {"at": now().isoformat(), "minutes": 60.0, "part": random.randrange(4), "urgency": 0, "falling": 0.0}
        text |= {"received_at": now().isoformat(), "image_id": "a" * 64, "order": "score"}
        for name in random.sample(sorted(text), random.randint(1, 3)):
            text[name] = random.choice((*ODD_VALUES, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"))
        packed = json.dumps(text, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
        if random.random() < 0.4:
            packed = change_bytes(random, packed)
        cursor = first.cursor or base64.urlsafe_b64encode(packed).decode().rstrip("=")
        self.send(f"/studies?cursor={cursor}", method="GET")

    def fuzz_query(self, random: Random) -> None:
        path = random.choice(("/studies", f"/images/{'a' * 64}", "/images/stored/heatmap", "/jobs/" + "a" * 36))
        names = ("bucket", "finding", "split", "reviewed", "limit", "cursor", "label", "explain")
        values = ("%00", "%ff", "%F0%9F", "9" * 40, "-1", "urgent", "true", "Mass", "top", "%27--", "a" * 3000)
        pairs = [f"{random.choice(names)}={random.choice(values)}" for _ in range(random.randrange(4))]
        self.send(f"{path}?{'&'.join(pairs)}", method="GET")

    def fuzz_json(self, random: Random) -> None:
        path, content = random.choice(sorted(BODIES.items()))
        content = dict(content)
        for name in random.sample([*content, "more"], random.randint(1, 2)):
            content[name] = random.choice(ODD_VALUES)
        body = json.dumps(content).encode()
        if random.random() < 0.3:
            body = change_bytes(random, body)
        self.send(path, body, {"content-type": "application/json"})

    def fuzz_key(self, random: Random) -> None:
        """No changed key is accepted."""
        changed = change_bytes(random, self.key.encode()).decode("latin-1")
        self.headers, whole = {"x-api-key": changed}, self.headers
        try:
            reply = self.send("/model", method="GET")
        finally:
            self.headers = whole
        assert reply.status == (200 if changed == self.key else 401), changed

    def fuzz_token(self, random: Random) -> None:
        """No changed token, and none of another issuer, audience, algorithm or time, is accepted."""
        content = claims()
        valid = jwt.encode(content, SECRET, "HS256")
        token = valid
        if random.random() < 0.5:
            token = change_bytes(random, valid.encode()).decode("latin-1")
        else:
            content |= {random.choice(("iss", "aud", "exp", "nbf")): random.choice((0, "x", 2**40, None, [], {}))}
            try:
                token = jwt.encode(content, random.choice((SECRET, "y" * 32)), random.choice(("HS256", "HS512")))
            except TypeError:  # PyJWT refuses to write it
                return
        self.headers, whole = {"authorization": f"Bearer {token}"}, self.headers
        try:
            reply = self.send("/model", method="GET")
        finally:
            self.headers = whole
        if reply.status == 200:
            accepted = jwt.decode(token, SECRET, ["HS256"], audience="chestai", issuer=ISSUER)
            assert accepted["sub"] == "rita" and accepted["exp"]

    def send(
        self, target: str, body: bytes = b"", headers: dict[str, str] | None = None, method: str = "POST"
    ) -> Reply:
        """Sends a request; its response must be a documented one, and no unplanned error of the server."""
        reply = send_request(self.app, target, [body] if body else [], {**self.headers, **(headers or {})}, method)
        path = target.partition("?")[0]
        statuses = self.documented.get((method, path)) or {200, 202, 400, 401, 403, 404, 405, 409, 422, 503}
        assert reply.status in statuses, (target[:200], reply.status, reply.body[:300])
        assert reply.status < 500 or b'"code":"state_unavailable"' not in reply.body, (target[:200], reply.body[:300])
        return reply

    def _read_statuses(self) -> dict[tuple[str, str], set[int]]:
        paths: dict[str, dict[str, Any]] = self.app.openapi()["paths"]
        return {
            (method.upper(), path): {int(status) for status in route["responses"] if status.isdigit()}
            for path, methods in paths.items()
            for method, route in methods.items()
        }
