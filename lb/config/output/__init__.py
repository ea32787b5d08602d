"""Output made of the model: the reference page, the JSON Schema, the text of a configuration."""
