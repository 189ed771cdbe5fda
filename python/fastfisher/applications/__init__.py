"""Applications: what people do with a Fisher, each thin and for any representation."""
