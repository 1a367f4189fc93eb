"""The ways in which NumPy arrays are convolved, and which to choose: `gpuconv.backends.numpy_` runs them."""
