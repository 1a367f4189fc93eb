"""One module per way to run a geometry on one kind of array.

Each has `conv_transpose` and `conv` with the signature of `backends.numpy_`. They see a geometry and
arrays that `ops` has checked, never a string that a user wrote.
"""
