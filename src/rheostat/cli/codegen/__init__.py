"""Typed code from one environment: `Setting` objects and types for Python, an interface for TypeScript.

``source`` reads the settings, ``schema`` makes a `Shape` of each type, ``python`` and ``typescript`` write modules.
"""
