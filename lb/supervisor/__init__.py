"""The program that decides: desired state, health, workers, and operators' orders."""
