"""Pages made of templates: everything that is put into one is escaped, and everything that it needs is in it."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

ENVIRONMENT = Environment(
    loader=PackageLoader("jobs", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(template: str, **values: Any) -> str:
    """The page; a value that the template misses is an error and not a gap."""
    return ENVIRONMENT.get_template(template).render(**values) + "\n"
