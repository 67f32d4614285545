"""The middleware that every request passes through: access log, limits and errors, API keys."""
