"""The alternatives to hoso, each in its own idiom. All do the same work, which is in steps.py."""
