"""Verifying: do the user's own files work here?"""
