"""A demonstration over real HTTP: a web shop under attack, and a backend that goes away."""
