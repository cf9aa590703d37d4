"""Agreement with the figures of the published code, for verify_reference.py."""
