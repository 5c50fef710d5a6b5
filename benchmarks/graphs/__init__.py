"""The graph's benchmark: questions, shapes, and each peer's way to run a shape."""
