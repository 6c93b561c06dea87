"""Numbers behind the compiler: activations, polynomial fits, CKKS parameters, noise and cost."""
