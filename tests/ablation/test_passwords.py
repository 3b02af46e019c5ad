"""No message shows the password of a storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoa_lightning.ablation.execution.storage import open_storage, without_passwords
from smoa_lightning.common.errors import UserError

SECRET = "s3cret"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@host/name",
        f"postgresql://me:{SECRET}/x@host/name",
        f"postgresql://me:a@{SECRET}@host/name",
        f"postgresql://:{SECRET}@host/name",
        f"postgresql://host/name?user=me&password={SECRET}&port=1",
        f"postgresql://host/name?sslpassword={SECRET}",
        f"mysql+pymysql://host/name?PASSWD={SECRET}",
        f"connection failed: host=h password={SECRET} dbname=n",
        f"the URL 'postgresql://host/name?password={SECRET}' is wrong",
    ],
)
def test_passwords_are_masked_everywhere(text: str) -> None:
    masked = without_passwords(text)
    assert SECRET not in masked
    assert "***" in masked
    assert "host" in masked


@pytest.mark.parametrize("text", ["postgresql://me@host/name", "mysql://host:3306/name?charset=utf8", "no URL: a@b"])
def test_other_texts_stay(text: str) -> None:
    assert without_passwords(text) == text


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://127.0.0.1:1/name?user=me&password={SECRET}",
        f"mysql+pymysql://me@127.0.0.1:1/name?password={SECRET}",
        f"nodriver://me:{SECRET}@host/name?password={SECRET}",
    ],
)
def test_an_unreachable_storage_shows_no_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--storage") as refused:
        open_storage(url, tmp_path)
    assert SECRET not in str(refused.value)
