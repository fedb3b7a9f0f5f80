"""The trade-off under the name that ``experiments/demo.py`` asks for.

Knows nothing of its own: see :mod:`analysis.figures.tradeoff`.
"""

from analysis.figures.tradeoff import tradeoff as tradeoff
