"""
The order of the stages, and nothing else: three one-way legs that meet at the folder and the database.

Each leg is a method that does one round and may be called again at any time; a crash anywhere is only a late start of
the next leg. Nothing is imported here, since a process of each kind needs only a part.
"""
