"""How exact the load is, side by side with vegeta and Locust, and how much of it one core sends. See README.md."""
