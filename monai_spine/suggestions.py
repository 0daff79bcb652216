"""The nearest of the names that there are, for the message about one that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean"]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`Did you mean 'ckan'? ` with the nearest name, or nothing where none is near.

    Example:
        >>> did_you_mean("ckann", ["cnn", "ckan"])
        "Did you mean 'ckan'? "
    """
    near = get_close_matches(name.strip().lower(), list(names), n=1)
    return f"Did you mean {near[0]!r}? " if near else ""
