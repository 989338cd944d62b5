import pytest


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    """Say nothing of a terminal's width: workers of a parallel test run are told that it is 80."""
    monkeypatch.delenv("COLUMNS", raising=False)
