"""The program that decides: desired state, health, workers, and what operators ask for."""
