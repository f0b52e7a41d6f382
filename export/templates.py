"""Pages made from the templates in export/pages/; whatever is put into HTML is escaped."""

import os
from typing import Any

import jinja2

_FOLDER = os.path.join(os.path.dirname(__file__), "pages")
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, /, **values: Any) -> str:
    """Returns a template, filled in."""
    return _ENVIRONMENT.get_template(template).render(**values)
