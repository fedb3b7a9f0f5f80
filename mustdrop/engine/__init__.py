"""Hooks that carry decisions out; the only package that touches transformers' internals."""
