"""The models of this computer: catalogue, files, fetching, and what of them could be shared."""
