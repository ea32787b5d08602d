"""The program that carries traffic. It imports the data plane and nothing that only the supervisor needs."""
