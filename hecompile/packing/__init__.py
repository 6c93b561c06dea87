"""Packing: tensors into slot vectors, linear maps into diagonals, polynomials into products."""
