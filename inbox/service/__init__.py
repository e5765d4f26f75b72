"""What runs around the pipeline: heartbeats, probes, metrics, and the log as people read it."""
