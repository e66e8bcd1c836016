"""The models page: what can be fetched and used."""
