"""What every request passes through: the access log, limits, errors, keys."""
