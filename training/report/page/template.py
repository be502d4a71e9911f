"""Templates of pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from training.report.page.pictures import pixels_uri

__all__ = ["load_template"]


def load_template(path: Path) -> Any:
    """A jinja2 template that escapes texts and refuses unknown names; its filter `picture` makes pixels a data URI.

    Raises:
        UserError: jinja2 is missing.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise UserError("the report needs jinja2, which is not installed: pip install jinja2") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["picture"] = pixels_uri
    return environment.from_string(path.read_text(encoding="utf-8"))
