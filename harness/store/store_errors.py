"""Errors that concern a store as a whole."""

from pathlib import Path

from harness.errors import StoreError


def cannot(what: str, store: Path, error: OSError) -> StoreError:
    """Return the error for what the operating system refuses in a store, with the remedy.

    Args:
        what: the verb of the message: ``read`` or ``write to``.
        store: the store's folder.
        error: the refusal.
    """
    reason = error.strerror or str(error)
    return StoreError(f"cannot {what} the store {store}: {reason}; free it or choose another with --store")
