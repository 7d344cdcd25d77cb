"""Brokers that require certificates, tokens or passwords and rights; a token server."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import RSAKey

from dev.kafka import KafkaService
from dev.kafka_install import properties
from dev.process import Child, free_ports

ISSUER = "https://tokens.example.com"
PASSWORD = "of the key"

PRINCIPALS = ("exporter-worker", "exporter-api", "exporter-ticker", "billing")
LITERAL, ALLOW = 3, 3
"""Codes of Kafka: a name is meant literally; the right is given."""


class Certificates:
    """A certificate authority and its certificates, as PEM files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        signed = self._sign(self._name, self._key, authority=True)
        self.authority = folder / "authority.pem"
        self.authority.write_bytes(signed.public_bytes(Encoding.PEM))

    def make(self, name: str, *, password: str | None = None) -> tuple[Path, Path]:
        """Make a certificate for ``name`` at this address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        locked: KeySerializationEncryption = (
            BestAvailableEncryption(password.encode()) if password else NoEncryption()
        )
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(signed.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
        return files

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        usage = dict.fromkeys(
            ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
            False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_encipherment=not authority,
                    key_cert_sign=authority,
                    crl_sign=authority,
                    **usage,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if not authority:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


class TokenServer:
    """Issues tokens to one client and publishes its keys. ``form`` is the last request."""

    CLIENT, SECRET = "exporter worker", "s%cret:1"

    def __init__(self) -> None:
        self.form: dict[str, list[str]] = {}
        self.given = 0
        self.lifetime = 3600
        self.basic = True
        """Whether it accepts the secret in a header, as the standard requires, or only in the body."""
        self._key = RSAKey.generate_key(2048, {"kid": "k", "use": "sig", "alg": "RS256"})

    def keys(self) -> dict[str, Any]:
        return {"keys": [self._key.as_dict(private=False)]}

    def answer(self, authorization: str | None, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        self.form = form
        if self.basic:
            secret = b"exporter+worker:s%25cret%3A1"
            allowed = authorization == f"Basic {base64.b64encode(secret).decode()}"
        else:
            allowed = form.get("client_id") == [self.CLIENT] and form.get("client_secret") == [self.SECRET]
        if not allowed or form.get("grant_type") != ["client_credentials"]:
            return 401, {"error": "invalid_client", "error_description": "never repeat s%cret:1"}
        self.given += 1
        now = int(time.time())
        claims: dict[str, Any] = {"iss": ISSUER, "sub": "exporter", "aud": "kafka", "scope": "kafka"}
        claims |= {"iat": now, "exp": now + self.lifetime}
        token = jwt.encode({"alg": "RS256", "kid": "k"}, claims, self._key)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Run the server; yield its address."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._send(*owner.answer(self.headers["Authorization"], parse_qs(content)))

            def do_GET(self) -> None:
                self._send(200, owner.keys())

            def _send(self, status: int, content: dict[str, Any]) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()
        thread.join()


class SecuredKafka(KafkaService):
    """The broker of the stack with two more listeners."""

    def __init__(self, run_dir: Path, certificates: Certificates, keys: str) -> None:
        super().__init__(run_dir)
        self._keys = keys
        certificate, key = certificates.make("broker")
        self._store = run_dir / "broker-store.pem"
        self._store.write_bytes(key.read_bytes() + certificate.read_bytes())
        self._authority = certificates.authority

    def choose_ports(self) -> None:
        self.port, self._controller_port, self.mtls_port, self.oauth_port = free_ports(4)
        own = f"MTLS://127.0.0.1:{self.mtls_port},OAUTH://127.0.0.1:{self.oauth_port}"
        lines = properties(self.port, self._controller_port, self.data_dir / "log").splitlines()
        changed = dict(line.split("=", 1) for line in lines)
        for name in ("listeners", "advertised.listeners"):
            changed[name] += f",{own}"
        changed["listener.security.protocol.map"] += ",MTLS:SSL,OAUTH:SASL_SSL"
        module = "org.apache.kafka.common.security.oauthbearer"
        changed |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self._authority),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.oauth.oauthbearer.sasl.jaas.config": f"{module}.OAuthBearerLoginModule required;",
            "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class": (
                f"{module}.OAuthBearerValidatorCallbackHandler"
            ),
            "listener.name.oauth.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": self._keys,
            "listener.name.oauth.oauthbearer.sasl.oauthbearer.expected.audience": "kafka",
            "listener.name.oauth.oauthbearer.sasl.oauthbearer.expected.issuer": ISSUER,
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in changed.items()))

    def spawn(self) -> Child:
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._keys}"
        return Child(self.name, self._install.command("kafka.Kafka", self._config, jvm=(allowed,)), self.log)


class AuthorizingKafka(KafkaService):
    """A broker whose principals have only the rights that they were given. The test has all rights."""

    def choose_ports(self) -> None:
        self.port, self._controller_port, self.password_port = free_ports(3)
        own = f"PASSWORDS://127.0.0.1:{self.password_port}"
        lines = properties(self.port, self._controller_port, self.data_dir / "log").splitlines()
        changed = dict(line.split("=", 1) for line in lines)
        for name in ("listeners", "advertised.listeners"):
            changed[name] += f",{own}"
        changed["listener.security.protocol.map"] += ",PASSWORDS:SASL_PLAINTEXT"
        users = " ".join(f'user_{name}="{PASSWORD}"' for name in PRINCIPALS)
        changed |= {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.name.passwords.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.passwords.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
            ),
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in changed.items()))

    def variables(self, principal: str) -> dict[str, str]:
        """Return the variables of a process that signs in as ``principal``."""
        return {
            "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.password_port}",
            "EXPORTER_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "EXPORTER_KAFKA_SASL_MECHANISM": "PLAIN",
            "EXPORTER_KAFKA_SASL_USERNAME": principal,
            "EXPORTER_KAFKA_SASL_PASSWORD": PASSWORD,
        }

    def allow(self, principal: str, operation: str, kind: str, name: str) -> None:
        """Give a right, with the words of ``kafka-acls.sh``."""
        codes = {
            "Read": 3,
            "Write": 4,
            "Create": 5,
            "Describe": 8,
            "DescribeConfigs": 10,
            "topic": 2,
            "group": 3,
        }
        wanted = CreateAclsRequest(codes[kind], name, LITERAL, principal, "*", codes[operation], ALLOW)

        async def give() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
            await admin.start()
            try:
                answer = await admin._send_request(wanted)
            finally:
                await admin.close()
            assert [code for code, _ in answer.creation_responses] == [0], answer

        asyncio.run(give())
