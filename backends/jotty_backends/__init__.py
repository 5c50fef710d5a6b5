"""The queue backends that come with jotty: one module each, found by entry point, imported by nobody."""
