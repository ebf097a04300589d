"""Where dossiers stand: the figures of each stage and which stage is the bottleneck."""
