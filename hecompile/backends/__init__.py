"""Backends: where an encrypted program runs and what its parameters cost there."""
