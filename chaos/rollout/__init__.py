"""Roll-outs, as sequences of experiments: the roll-back and its drill."""
