"""Tests of what is refused early hold for the versions that the schema of settings was made from."""

from __future__ import annotations

import pytest

from smoa_lightning.configuration.settings import matches_schema, schema

OTHER_VERSIONS = "other versions of the libraries are installed than those that the schema was made from"
pinned_versions_only = pytest.mark.skipif(not all(map(matches_schema, schema()["x-versions"])), reason=OTHER_VERSIONS)
