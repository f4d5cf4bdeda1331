#!/usr/bin/env python3
"""A small OpenID Connect provider, for tests: two issuers, discovery, keys that rotate, and a token endpoint.

Usage: oidc_provider.py CERTIFICATE KEY. Says `ready PORT` once it serves, and ends with its standard input.
The tokens are PyJWT's, so that nothing of the server that judges them is used to make them.
"""

import http.server
import json
import ssl
import sys
import threading
import time
import urllib.parse
import uuid

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


class Issuer:
    def __init__(self, url, algorithm):
        self.url = url
        self.algorithm = algorithm
        self.rotate()

    def rotate(self):
        self.kid = str(uuid.uuid4())
        if self.algorithm == "RS256":
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        else:
            self.key = ec.generate_private_key(ec.SECP256R1())

    def jwk(self):
        algorithm = RSAAlgorithm if self.algorithm == "RS256" else ECAlgorithm
        public = self.key.public_key()
        if self.algorithm == "RS256":
            key = json.loads(algorithm.to_jwk(public))
        else:
            numbers = public.public_numbers()
            coordinate = lambda n: jwt.utils.base64url_encode(n.to_bytes(32, "big")).decode()
            key = {"kty": "EC", "crv": "P-256", "x": coordinate(numbers.x), "y": coordinate(numbers.y)}
        key.pop("key_ops", None)
        return {**key, "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def token(self, claims):
        now = int(time.time())
        whole = {"iss": self.url, "aud": "kube", "iat": now, "exp": now + 600, "sub": "ada", **claims}
        return jwt.encode(whole, self.key, algorithm=self.algorithm, headers={"kid": self.kid})


class Handler(http.server.BaseHTTPRequestHandler):
    issuers = {}

    def answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        name, _, rest = url.path.lstrip("/").partition("/")
        issuer = self.issuers.get(name)
        if issuer is None:
            return self.answer(404, {"error": "no such issuer"})
        query = dict(urllib.parse.parse_qsl(url.query))
        if rest == ".well-known/openid-configuration":
            return self.answer(200, {
                "issuer": issuer.url,
                "jwks_uri": f"{issuer.url}/keys",
                "token_endpoint": f"{issuer.url}/token",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [issuer.algorithm],
            })
        if rest == "keys":
            return self.answer(200, {"keys": [issuer.jwk()]})
        if rest == "token":
            return self.answer(200, {"id_token": issuer.token(json.loads(query.get("claims", "{}")))})
        if rest == "rotate":
            issuer.rotate()
            return self.answer(200, {"kid": issuer.kid})
        return self.answer(404, {"error": "not found"})

    def log_message(self, *args):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    for name, algorithm in [("one", "RS256"), ("two", "ES256")]:
        Handler.issuers[name] = Issuer(f"https://localhost:{port}/{name}", algorithm)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"ready {port}", flush=True)
    sys.stdin.read()


main()
