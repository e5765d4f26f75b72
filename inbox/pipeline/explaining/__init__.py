"""
Explaining: what the service would do with a file now, and why, without doing it.

`look` gathers the facts with the very functions by which the service decides; `judge` goes through them in its order.
Nothing is written, moved or kept: no row, no lock, no file.
"""

from inbox.pipeline.explaining.explanation import Explanation, Facts, Ruling, Verdict
from inbox.pipeline.explaining.judging import judge
from inbox.pipeline.explaining.looking import Looker, Service

__all__ = ["Explanation", "Facts", "Looker", "Ruling", "Service", "Verdict", "judge"]
