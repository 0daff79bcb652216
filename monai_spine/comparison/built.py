"""What configs make. MONAI raises errors of its own from whatever goes wrong in a config; ours come out as they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monai.bundle import ConfigParser

from monai_spine.errors import SpineError

__all__ = ["built", "cause_of"]


def built(parser: ConfigParser, name: str) -> Any:
    """What a section of a config makes.

    Raises:
        SpineError: What it was refused for.
    """
    try:
        return parser.get_parsed_content(name)
    except RuntimeError as error:
        refused = next((one for one in _causes(error) if isinstance(one, SpineError)), None)
        if refused is None:
            raise
        raise refused from error


def cause_of(error: BaseException) -> str:
    """What an error began with, which may have been raised from others, on one line."""
    *_, first = _causes(error)
    return " ".join(str(first).split()) or type(first).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
