"""Extension of mkdocstrings: turns the roles of docstrings, as in ``:class:`Random```, into code.

Knows nothing about pages.
"""

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|meth|mod|func|attr):`~?\.?([^`]*)`")


class Roles(Extension):
    """Rewrites each docstring when its object is loaded."""

    def on_instance(self, *, obj: Object, **options: Any) -> None:
        """Replace each role by its target in backticks."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
