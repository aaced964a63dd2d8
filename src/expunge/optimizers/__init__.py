"""Plug-ins: how does a gradient become a step, where transformers has no such rule?"""
