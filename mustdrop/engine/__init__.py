"""Hooks that carry decisions out; the only room that touches transformers' internals."""
