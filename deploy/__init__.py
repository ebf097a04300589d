"""What starts hoso and what stands beside it: the local stack, the simulators, a real Kafka, the production files."""
