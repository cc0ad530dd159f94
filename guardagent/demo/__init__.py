"""A demonstration over real HTTP: a web shop under attack, and a backend that goes away."""

from __future__ import annotations

from guardagent.demo.play import Audience, Play, Scene

__all__ = ["Audience", "Play", "Scene"]
