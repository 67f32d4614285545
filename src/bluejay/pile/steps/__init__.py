"""The steps of a corpus build, in the order of the picture in docs/design.md: files in, one directory out.

A field that is named after a step is that step's output directory; where it is a tuple, there is one for each part.
`decisions` and `passages` are the files that `Decide` and `FindPassages` wrote for a part.
"""
