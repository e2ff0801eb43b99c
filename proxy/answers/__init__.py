"""Answers about policy without a cluster: what would be decided, why, and what the smallest change is.

    Question --ask(World)--> Answer --explain--> Report --text | JSON

Pure: files' contents and the time are arguments. The decision itself is not made here: `question` asks the gate, the
token rules and the compiled policies that a running sidecar asks, in its order. Read `question` first, then `report`.

    editing     the smallest edit that would allow a denied call
    testing     table tests, their report, the file to begin with
    calls       calls made up from what rules name
    comparing   two sets side by side: who gains and who loses
"""
