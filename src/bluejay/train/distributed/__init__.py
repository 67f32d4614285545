"""Training one model on many processes: the mesh, pipeline stages and the watchdog."""
