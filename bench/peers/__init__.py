"""What else one could have picked, each in its own idiom, doing the same work: see steps.py for the work."""
