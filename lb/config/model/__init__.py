"""The contents of the file: sections, fields, how each is read and checked."""
