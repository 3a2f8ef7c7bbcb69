"""Predictions that need no trained network: exact answers for Gaussian data, families of scales s_t, and the best of each."""
