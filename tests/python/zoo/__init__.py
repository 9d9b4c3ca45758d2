"""Models in the forms that exporters write, made without any training framework; see zoo/catalog.py."""
