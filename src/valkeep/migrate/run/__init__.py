"""A whole migration, from preflight to promotion: `pipeline.py` composes it. Files as the source (`restoration.py`) and the gateway alone
(`service.py`) do with less."""
