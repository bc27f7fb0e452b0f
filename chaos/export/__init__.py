"""What is generated from gates.toml for other tools."""
