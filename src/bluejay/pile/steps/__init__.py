"""The steps of a corpus build, in the order of the picture in docs/design.md: files in, one directory out."""
