"""Snapshots (RDB files and payloads): scanning, decoding, converting and writing them."""
