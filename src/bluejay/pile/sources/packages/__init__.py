"""Documents out of archives and packages, fetched by name and hash."""
