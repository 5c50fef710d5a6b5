"""The two halves of jotty: `orchestration` runs actors, `queue` keeps goals until they are run."""
