"""Weights in 8 and 4 bits: how they are packed, and how rounding is fitted to the inputs they multiply."""
