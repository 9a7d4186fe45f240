"""A Flower app: LLMasOS trains at the nodes and combines at the server."""
