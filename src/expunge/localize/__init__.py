"""Slot: which weights are trained?"""
