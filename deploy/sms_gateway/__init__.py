"""A stand-in for the SMS and Zalo gateway: accepts messages, remembers them by key, and simulates faults."""
