"""Source code: folders, git repositories, the standard library."""
