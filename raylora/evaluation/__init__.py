"""How good an adapter is on labelled rows: numbers first, as records; drawn elsewhere."""
