"""Durable agent workflows: run actors towards a goal, now or from a queue."""
