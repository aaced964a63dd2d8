"""Slot: what holds the rest in place?"""
