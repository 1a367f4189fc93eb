"""CUDA: a kernel a file (``.cu``), beside it the module that counts its work and launches it."""
