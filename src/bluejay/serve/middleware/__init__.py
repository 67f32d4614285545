"""This package holds what every request passes through before an endpoint: access log, limits, errors and API keys."""
