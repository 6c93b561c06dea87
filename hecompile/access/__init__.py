"""Access control: policies, the decisions made from them, and the signed manifest."""
