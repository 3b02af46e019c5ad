from __future__ import annotations

import importlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import close_session, constants, errors, get_session

from smoa_lightning.backbones import hub
from smoa_lightning.backbones.hub import hub_answers, hub_errors, resolve_source
from smoa_lightning.common.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    for name in hub.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(hub, "_answers", {})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    close_session()


@pytest.fixture
def silent_port():
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def set_endpoint(monkeypatch, address):
    monkeypatch.setattr(constants, "ENDPOINT", address)


def no_request(*args):
    raise AssertionError("a request was made")


@pytest.mark.parametrize("variable", hub.OFFLINE_VARIABLES)
@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_variables_ask_nobody(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(hub, "probe", no_request)
    assert not hub_answers()


@pytest.mark.parametrize("value", ["0", "", "false"])
def test_offline_variables_that_are_off(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(hub, "probe", lambda address, timeout: True)
    assert hub_answers()


def test_a_silent_hub_is_given_up_in_time(monkeypatch, silent_port):
    set_endpoint(monkeypatch, f"http://127.0.0.1:{silent_port}")
    start = time.monotonic()
    assert not hub_answers(timeout=1.0)
    assert 0.9 < time.monotonic() - start < 1.8
    asked = time.monotonic()
    assert not hub_answers(timeout=1.0)
    assert time.monotonic() - asked < 0.5  # the answer is kept


def test_a_bug_does_not_pass_for_a_silent_hub(monkeypatch):
    import huggingface_hub.utils

    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: None)
    with pytest.raises(AttributeError):
        hub_answers()


def test_names_that_do_not_resolve_in_time(monkeypatch):
    """Name resolution heeds no socket timeout, so the deadline must."""
    real = socket.getaddrinfo

    def slow(host, *args, **kwargs):
        if host == "hub.invalid":
            time.sleep(2.0)
            raise socket.gaierror("no such name")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    set_endpoint(monkeypatch, "http://hub.invalid")
    start = time.monotonic()
    assert not hub_answers(timeout=0.5)
    assert 0.4 < time.monotonic() - start < 1.2
    time.sleep(1.7)  # let the probe's thread end before getaddrinfo is put back


def test_a_refusing_hub(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    set_endpoint(monkeypatch, f"http://127.0.0.1:{port}")
    start = time.monotonic()
    assert not hub_answers()
    assert time.monotonic() - start < 1.0


@pytest.mark.parametrize("status", [200, 404, 503])
def test_any_answer_is_an_answer(monkeypatch, status):
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        set_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        try:
            assert hub_answers()
        finally:
            server.shutdown()
            thread.join()


def test_an_endpoint_that_is_no_address(monkeypatch):
    set_endpoint(monkeypatch, "huggingface.co")
    with pytest.raises(UserError, match=r"HF_ENDPOINT is 'huggingface.co'"):
        hub_answers()


def fill_cache(root, repo_type="model", files=("config.json", "model.safetensors"), revision="main"):
    folder = root / f"{repo_type}s--own--thing"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).write_text("x")
    reference = folder / "refs" / revision
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)


def resolve(requested, repo_type="model", revision=None, embedded=True, repo_id="own/thing"):
    return resolve_source(requested, repo_id, repo_type, revision, embedded)


def test_resolution_when_the_hub_answers(monkeypatch):
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    answers = [resolve(name) for name in ("auto", "hub", "local", "embedded")]
    assert answers == ["hub", "hub", "local", "embedded"]


def test_resolution_when_the_hub_is_silent(monkeypatch):
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    answers = [resolve(name) for name in ("auto", "local", "embedded")]
    assert answers == ["embedded", "local", "embedded"]
    with pytest.raises(
        UserError, match=r"does not answer and its cache does not hold the model 'own/thing'; use source"
    ):
        resolve("hub")
    with pytest.raises(UserError, match="does not answer"):
        resolve("auto", embedded=False)


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_the_cache_replaces_a_silent_hub(monkeypatch, tmp_path, revision):
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    fill_cache(tmp_path)
    assert resolve("auto", revision=revision) == resolve("hub", revision=revision) == "hub"
    assert resolve("auto", revision="v2") == "embedded"
    assert resolve("auto", "dataset") == "embedded"


@pytest.mark.parametrize("files", [("config.json",), ("model.safetensors",), ()])
def test_a_cache_without_config_or_weights_does_not(monkeypatch, tmp_path, files):
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    fill_cache(tmp_path, files=files)
    assert resolve("auto") == "embedded"


def test_data_in_the_cache_under_a_long_revision(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    fill_cache(tmp_path, "dataset", ("train.parquet",), "refs/convert/parquet")
    assert resolve("auto", "dataset", "refs/convert/parquet") == "hub"


def test_unavailable_sources_are_refused():
    with pytest.raises(UserError, match=r"unknown source 'embeded' for the model; did you mean embedded\?"):
        resolve("embeded")
    with pytest.raises(UserError, match="no embedded dataset is shipped"):
        resolve("embedded", "dataset", embedded=False)
    assert resolve("auto", repo_id=None) == "embedded"
    with pytest.raises(UserError, match="has no repository on the hub"):
        resolve("hub", repo_id=None)


def http_library():
    """The library that this huggingface_hub speaks HTTP with."""
    return importlib.import_module(type(get_session()).__module__.split(".")[0])


def response(status):
    library = http_library()
    return library.Response(status, request=library.Request("GET", "https://example.org"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (lambda: errors.GatedRepoError("x", response=response(403)), "is gated: accept its terms at .*own/thing"),
        (lambda: errors.RepositoryNotFoundError("x", response=response(404)), "the hub has no model 'own/thing'"),
        (lambda: errors.RevisionNotFoundError("x", response=response(404)), "has no revision 'v1'"),
        (lambda: errors.LocalEntryNotFoundError("x"), "cache does not hold the model 'own/thing' at revision 'v1'"),
        (lambda: errors.OfflineModeIsEnabled("x"), "cache does not hold"),
        (lambda: errors.EntryNotFoundError("no config.json\nat all"), "lacks a required file: no config.json$"),
        (lambda: errors.HFValidationError("x"), "'own/thing' is neither a name of a model"),
        (lambda: errors.HfHubHTTPError("503 Server Error", response=response(503)), "answered with status 503"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_errors_of_the_hub_become_one_sentence(error, message, wrapped):
    def load():
        if not wrapped:
            raise error()
        try:
            raise error()
        except Exception as inner:
            raise OSError("a long text of transformers") from inner

    with pytest.raises(UserError, match=message), hub_errors("own/thing", revision="v1"):
        load()


def test_a_broken_connection():
    with (
        pytest.raises(UserError, match=r"connection to the hub failed .* ReadTimeout: too slow"),
        hub_errors("own/thing"),
    ):
        raise http_library().ReadTimeout("too slow")


def test_other_errors_pass_unchanged():
    for error in (KeyError("a"), ValueError("b"), OSError("disk full"), UserError("c")):
        with pytest.raises(type(error)) as caught, hub_errors("own/thing"):
            raise error
        assert caught.value is error
