"""
Dispatching: files are claimed in pages, handlers run in worker processes, outcomes are recorded in groups.

Worker processes claim and record for themselves; nothing travels between processes per file. The supervisor knows
through shared memory which file each has in hand, kills at the deadline, and charges the attempt to that file alone.
"""
