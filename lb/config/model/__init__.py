"""What the file may say: sections, fields, how each is read and checked."""
