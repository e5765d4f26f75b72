"""The composition root: turns settings into a service, in the main process and in each worker process."""
