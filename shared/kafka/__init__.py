"""The broker: settings, topics, one subscription for all of a service's topics, and batches fetched ahead."""
