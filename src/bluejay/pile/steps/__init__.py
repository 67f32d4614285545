"""The steps of a corpus build, in the order of the picture in docs/design.md: files in, one directory out.

A field that is named after a step is that step's output directory; where it is a tuple, there is one for each of a few
parts. A listing is the output of `ListOutputs`, which names many of them.
`decisions` and `passages` are the files that `Decide` and `LocatePassages` wrote for a part.
"""
