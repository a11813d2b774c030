"""Presets: what data looks like -> network, training and task options.

recipe: what a preset looks at and gives; general: one answer a sequence; registry: all of them by name.
"""
