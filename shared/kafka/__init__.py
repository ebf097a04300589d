"""The broker: settings, topics, one subscription for all topics of a service, and prefetched batches."""
