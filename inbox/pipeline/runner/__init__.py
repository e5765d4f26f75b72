"""
The order of the stages, and nothing else: three one-way legs that meet at the folder and the database.

Each leg is a method that does one round and may be called again at any time; a crash anywhere is only a late start of
the next leg.
"""

from inbox.pipeline.runner.closing import Closing, is_everything_done
from inbox.pipeline.runner.heartbeat import Heartbeat
from inbox.pipeline.runner.intake import Intake
from inbox.pipeline.runner.rescue import Rescuing
from inbox.pipeline.runner.taking import Taker
from inbox.pipeline.runner.timing import Timing
from inbox.pipeline.runner.unpacking import Unpacker

__all__ = ["Closing", "Heartbeat", "Intake", "Rescuing", "Taker", "Timing", "Unpacker", "is_everything_done"]
