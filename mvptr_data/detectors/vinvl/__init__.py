"""The VinVL detector (ResNeXt-152 C4 with attributes), for the weights its authors released. README.md is the way in."""
