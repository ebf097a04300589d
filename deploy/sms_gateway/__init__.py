"""Stands for the SMS and Zalo gateway: takes messages, remembers them by key, and misbehaves when told to."""
