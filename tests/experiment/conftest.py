import pytest
import toy_plugins


@pytest.fixture
def toys():
    """The plugin of `toy_plugins` is there."""
    with toy_plugins.registered():
        yield
