"""A campaign against the stack: work goes on while everything is killed, frozen and restarted; then the proof."""
