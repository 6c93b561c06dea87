"""Bundles: what a compile writes, and what the client, the evaluator and the custodian read."""
