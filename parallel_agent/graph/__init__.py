"""What a graph is, and how it runs: definition, decisions and engine, each apart from the others.

`edges` is what users write, `definition` what a graph is once it has been checked, `progress`
decides what starts when, `feeding` makes a node's input of other nodes' outputs, and `engine`
runs it. Only the engine waits for anything; the others are pure.
"""
