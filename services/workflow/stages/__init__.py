"""The figures of each stage, and which stage is the bottleneck."""
