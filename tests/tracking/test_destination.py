"""Whether the tracking server answers is asked as all else is: with MLflow's own credentials and TLS settings."""

import datetime
import ipaddress
import ssl
from http.server import BaseHTTPRequestHandler

import mlflow
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from machines import answering

from encoder_reduction.errors import UserError
from encoder_reduction.tracking import destination, patience

# "reader:secret" in base 64.
CREDENTIALS = {"token": "Bearer secret", "password": "Basic cmVhZGVyOnNlY3JldA=="}


class Guarded(BaseHTTPRequestHandler):
    """Says its ``status`` to those who have the password, if it has one."""

    def do_GET(self):
        known = self.headers["Authorization"] == self.server.password or self.server.password is None
        self.send_response(self.server.status if known and self.path == "/health" else 401)
        self.end_headers()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """No credentials of this machine's user, and no waiting."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(patience.PATIENCE_VARIABLE, "0")
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture
def certificate(tmp_path):
    """The file of a certificate for 127.0.0.1 that nobody but itself has signed, and a server's context with it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return file, context


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("token", {"MLFLOW_TRACKING_TOKEN": "secret"}),
        ("password", {"MLFLOW_TRACKING_USERNAME": "reader", "MLFLOW_TRACKING_PASSWORD": "secret"}),
    ],
)
def test_a_server_that_asks_who_we_are_is_told(monkeypatch, kind, settings):
    with answering(Guarded, status=200, password=CREDENTIALS[kind]) as server:
        mlflow.set_tracking_uri(server.address)
        with pytest.raises(UserError, match=r"refuses this client \(401\): set MLFLOW_TRACKING_TOKEN"):
            destination.check_store()
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        destination.check_store()


def test_a_certificate_that_nobody_vouches_for_is_taken_when_it_is_named_or_none_is_asked_for(monkeypatch, certificate):
    file, context = certificate
    with answering(Guarded, context, status=200, password=None) as server:
        mlflow.set_tracking_uri(server.address)
        words = (
            f"certificate of tracking server {server.address} is refused .*self-signed.*MLFLOW_TRACKING_INSECURE_TLS"
        )
        with pytest.raises(UserError, match=words):
            destination.check_store()
        with monkeypatch.context() as named:
            named.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
            destination.check_store()
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        destination.check_store()


def test_a_proxy_whose_server_is_away_is_no_answer():
    with answering(Guarded, status=503, password=None) as proxy:
        mlflow.set_tracking_uri(proxy.address)
        with pytest.raises(UserError, match=r"does not answer \(503 Service Unavailable\): start it"):
            destination.check_store()
