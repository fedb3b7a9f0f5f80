"""Extension of mkdocstrings: turns the roles of docstrings, as in ``:class:`Random```, into code.

It also shows a section ``Example`` as code, which mkdocstrings does for ``Examples`` only.

Knows nothing about pages.
"""

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|meth|mod|func|attr):`~?\.?([^`]*)`")


class Roles(Extension):
    """Rewrites each docstring when its object is loaded."""

    def on_instance(self, *, obj: Object, **options: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = text.replace("\nExample:\n", "\nExamples:\n")
