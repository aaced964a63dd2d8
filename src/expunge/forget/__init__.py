"""Slot: what loss pushes the knowledge out?"""
