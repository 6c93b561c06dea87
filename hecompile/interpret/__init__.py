"""Interpreters that run a program in the clear: tensors, slots, slots with CKKS noise."""
