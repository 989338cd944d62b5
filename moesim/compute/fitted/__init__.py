"""Kernel times from small models with physical meaning, fitted on published measurements.

Each family of kernels has one equation (`models`) with a few coefficients per GPU, which stand in
``data/kernels/fitted.yaml`` with the rows they come from and their error on shapes that were held out
(``refit/data/split.csv``, frozen before the first fit).
"""
