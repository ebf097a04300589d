"""Publishing: events are stored with the state they speak of, and a relay sends them to the broker in order."""
