"""Slot: what changes the weights before training, or instead of it?"""
