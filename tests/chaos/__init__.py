"""The chaos campaign: its schedule, its comparison of answers, its verdict."""
