"""Refinement: decoded crystals moved to where atoms of real crystals would sit."""
