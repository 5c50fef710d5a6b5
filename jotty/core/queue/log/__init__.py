"""What makes a store of any place that can lock, and append to a log; `LogBackend` is the whole of it.

`seam` is what such a place must do, and all that a backend's author writes. `writer` is the thread that has
the log, `session` one opening of it. `state` is the store as the log's lines tell it, `entries` those lines,
and `contents` where payloads and outcomes are, in the lines or beside them.
"""
