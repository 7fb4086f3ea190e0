import pytest
import toy_plugins

from harness.plugins.registry import Resolved


@pytest.fixture
def toys():
    """The plugin of `toy_plugins` is there."""
    with toy_plugins.registered():
        yield


@pytest.fixture
def other_source(monkeypatch):
    """From now on, the source of what is called ``name`` is another."""

    def change(name):
        before = Resolved.source_digest
        monkeypatch.setattr(
            Resolved, "source_digest", lambda self: "0" * 64 if self.entry.name == name else before(self)
        )

    return change
