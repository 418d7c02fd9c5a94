from __future__ import annotations

import json
import logging
import pickle
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from sources import SourceAuthError, SourceConfigError
from sources.s3 import S3Store
from tests.conftest import BUCKET
from tests.services.faults import FaultProxy, fault_proxy
from tests.services.moto import missing, moto_server
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.weed import S3Server

SECRET = "hunter2-is-not-a-secret-to-show"


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A server that answers for S3 and STS and accepts all keys, behind a proxy that tells what was sent."""
    require(missing())
    with moto_server(tmp_path_factory.mktemp("moto")) as server, fault_proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def process_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile whose keys a program prints; they are valid for seconds. The file that it reads them from."""
    keys, script, config = tmp_path / "keys.json", tmp_path / "print_keys.py", tmp_path / "config"
    script.write_text(f"print(open({str(keys)!r}).read())\n")
    config.write_text(f"[profile turning]\ncredential_process = {sys.executable} {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    return keys


def write_keys(file: Path, key: str, secret: str) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    file.write_text(json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret, "Expiration": end}))


@pytest.mark.parametrize("name", ["turning/x", "turning//x"])  # a key for each client
def test_keys_that_turn_over_are_followed_by_an_open_store(s3: S3Server, process_profile: Path, name: str) -> None:
    write_keys(process_profile, s3.key, s3.secret)
    store = S3Store(BUCKET, {"profile": "turning", "endpoint_url": s3.endpoint})
    store.put(name, b"1")
    write_keys(process_profile, s3.key, SECRET)
    with pytest.raises(SourceAuthError, match="refuses these credentials"):
        _until_refused(store, name)
    write_keys(process_profile, s3.key, s3.secret)
    assert _until_accepted(store, name) == 1


def _until_refused(store: S3Store, name: str) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=10)  # obstore asks for new keys every 0.1 s at most
    while datetime.now(UTC) < deadline:
        store.stat(name)


def _until_accepted(store: S3Store, name: str) -> int:
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while True:
        try:
            return store.stat(name).size
        except SourceAuthError:
            if datetime.now(UTC) > deadline:
                raise


@pytest.mark.parametrize("name", ["x", "x//y"])
def test_a_look_up_that_fails_is_told_without_what_was_printed(
    s3: S3Server, process_profile: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    process_profile.write_text(f'{{"Version": 9, "SecretAccessKey": "{SECRET}"}}')
    store = S3Store(BUCKET, {"profile": "turning", "endpoint_url": s3.endpoint})
    with pytest.raises(SourceAuthError, match="check AWS_ACCESS_KEY_ID") as caught:
        store.stat(name)
    assert SECRET not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}{caplog.text}"


@pytest.mark.parametrize("name", ["x", "x//y"])
@pytest.mark.parametrize(
    "lines",
    [
        f"credential_process = echo {SECRET}",
        "credential_process = /no/such/program",
        "web_identity_token_file = /no/such/file\nrole_arn = arn:aws:iam::123456789012:role/x",
        "role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = nobody",
        "sso_start_url = https://x\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = x",
        "aws_access_key_id = k",
    ],
)
def test_a_profile_that_gives_no_keys_is_told_by_both_clients(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lines: str
) -> None:
    config = tmp_path / "config"
    config.write_text(f"[profile broken]\n{lines}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(SourceAuthError, match=r"looking credentials up failed \(\w+\)") as caught:
        S3Store(BUCKET, {"profile": "broken", "endpoint_url": s3.endpoint}).stat(name)
    assert SECRET not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


@pytest.mark.parametrize("name", ["x", "x//y"])
@pytest.mark.parametrize("text", ["", "not a configuration"])
def test_keys_of_the_options_need_no_profile(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    config = tmp_path / "config"
    config.write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(FileNotFoundError):
        S3Store("raw", s3.options).stat(f"none/{name}")
    without_endpoint = {name: value for name, value in s3.options.items() if name != "endpoint_url"}
    if not text:
        with pytest.raises(SourceConfigError, match="no profile 'nobody'"):  # it would say where
            S3Store("raw", without_endpoint)


def test_an_environment_that_makes_no_client_is_told(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_EXPRESS", "true")
    with pytest.raises(SourceConfigError, match=r"check the AWS_\* variables"):
        S3Store(BUCKET, s3.options)


@pytest.mark.parametrize("name", ["x", "x//y"])
def test_having_no_credentials_is_told(s3: S3Server, name: str) -> None:
    with pytest.raises(SourceAuthError, match=r"no credentials found; .*anon: true"):
        S3Store(BUCKET, {"endpoint_url": s3.endpoint}).stat(name)


@pytest.mark.parametrize("name", ["anonymous/x", "anonymous//x"])
def test_an_anonymous_request_is_not_signed(
    s3: S3Server, moto: FaultProxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unused")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")
    with pytest.raises(FileNotFoundError):
        S3Store("anonymous", {"anon": True, "endpoint_url": moto.url}).stat(name)
    assert "authorization" not in moto.heads[-1].headers


@pytest.mark.parametrize("name", ["x", "x//y"])
def test_an_anonymous_request_that_is_refused_is_not_told_to_check_keys(s3: S3Server, name: str) -> None:
    with pytest.raises(SourceAuthError, match="anon: true reads only what is public") as caught:
        S3Store(BUCKET, {"anon": True, "endpoint_url": s3.endpoint}).stat(name)
    assert "AWS_ACCESS_KEY_ID" not in str(caught.value)


@pytest.mark.parametrize("name", ["x", "x//y"])
def test_a_session_token_is_sent_and_never_that_of_other_keys(
    moto: FaultProxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-other-keys")
    for token in ("ours", None):
        options = {"key": "k", "secret": "s", "token": token, "endpoint_url": moto.url}
        with pytest.raises(FileNotFoundError):
            S3Store("tokens", options).stat(name)
        assert moto.heads[-1].headers.get("x-amz-security-token") == token


@pytest.mark.parametrize("name", ["x", "x//y"])
def test_a_web_identity_is_exchanged_for_keys(
    moto: FaultProxy, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text(SECRET)
    for variable, value in {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/training",
        "AWS_ENDPOINT_URL_STS": moto.url,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(variable, value)
    before = moto.counts.requests
    store = S3Store("identity", {"endpoint_url": moto.url})
    assert moto.counts.requests == before  # opening contacts nothing
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            store.stat(name)
    sent = list(moto.heads)[before - moto.counts.requests :]
    assert [head.method for head in sent] == ["POST", "HEAD", "HEAD"]  # STS once
    given = sent[-1].headers["x-amz-security-token"]
    assert given
    assert given not in caplog.text
    assert SECRET not in caplog.text


def test_no_secret_is_in_what_a_store_shows(s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = S3Store(BUCKET, {**s3.options, "secret": SECRET, "token": f"token-{SECRET}"})
    texts = [repr(store), str(store), str(vars(store).get("_read"))]
    for name in ("x", "x//y"):
        with pytest.raises(SourceAuthError) as caught:
            store.stat(name)
        texts += [str(caught.value), repr(caught.value), repr(caught.value.__context__)]
    assert SECRET not in "".join([*texts, caplog.text])


def test_what_the_environment_told_is_not_carried_to_another_process(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    assert s3.secret.encode() not in pickle.dumps(S3Store(BUCKET, {}))
