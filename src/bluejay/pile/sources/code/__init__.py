"""Sources of program code: folders, git repositories, the standard library."""
