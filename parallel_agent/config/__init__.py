"""Graphs written in YAML or JSON files. YAML needs the extra ``yaml``; JSON needs none.

A file goes through stages, each of which tells all that it finds wrong before the next begins:
`source` (text to values, each with its line and column), `format` (values to the classes of the
format), `checking` (what the classes cannot say) and `compiling` (to a `GraphAgent`). `loading`
puts them together. Only `loading` and `modules` touch files or import anything.
"""
