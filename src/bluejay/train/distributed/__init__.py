"""One model on many processes: the mesh, pipeline stages, the watchdog."""
