"""Slot: how do the two gradients become one step?"""
