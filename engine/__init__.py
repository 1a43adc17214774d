"""Lossless speculative decoding on this process's device."""
