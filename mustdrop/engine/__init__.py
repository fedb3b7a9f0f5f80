"""Hooks that carry a strategy's decisions out. The only room that touches transformers' internals."""
