"""Recipes for clusters: files to copy and fill in; see README.md beside them."""
