"""Rules: what should happen, as pure functions over facts and resources."""
