"""What is wrong or unwise in a file although each field is valid, and the words for it."""
