"""Proof for people who write a backend, or test with jotty (extra: testing)."""

from __future__ import annotations

from .clock import VirtualClock

__all__ = ["VirtualClock"]
