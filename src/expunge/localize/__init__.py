"""Slot: which weights may move?"""
