"""Two backends for jotty, to learn from: `lines` and `document`."""
