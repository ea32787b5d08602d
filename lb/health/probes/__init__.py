"""One file per protocol; each is `async probe(target, spec) -> Verdict`."""
