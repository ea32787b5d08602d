"""The text of the file: a tree of nodes that know their place, and problems that quote their line."""
