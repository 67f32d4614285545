"""The verbs of the command line that have many options: a module adds those of its verb, and runs it. What takes long
to import is imported when a verb runs, so that `bluejay --help` is fast."""
