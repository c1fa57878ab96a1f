"""Detectors of the detectron2 library: C4 and FPN configs with box-head features, bottom-up attention's attributes among them.

This package has the library's name. Imports in this project are absolute, so `detectron2.` always means the library.
"""
